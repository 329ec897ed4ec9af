// Asks the service for new results once a second and draws them.

import * as api from "./api.js";
import * as ask from "./ask.js";
import * as box from "./box.js";
import * as cards from "./cards.js";
import * as chart from "./chart.js";
import * as editor from "./editor.js";
import { announce, byId, h, count, setText } from "./dom.js";
import * as keys from "./keys.js";
import * as learn from "./learn.js";
import { renderLists, summary } from "./lists.js";
import * as regions from "./regions.js";
import * as scale from "./scale.js";
import { add, addRejects, chooseModel, noteUnseen, setModels, store } from "./store.js";
import * as threshold from "./threshold.js";
import * as upload from "./upload.js";
import * as viewer from "./viewer.js";
import * as why from "./why.js";
import * as zones from "./zones.js";

const EVERY = 1000; // results, milliseconds
const SLOW_EVERY = 4; // status and models: every so many times
const LONGEST_WAIT = 30_000; // between attempts without a connection
const REJECTS = 100;
const SAY_EVERY = 4000; // to screen readers

let turn = 0;
let failures = 0;
let wake = () => {};
let unsaid = [];
let saidAt = 0;

const sleep = (time) =>
  new Promise((done) => {
    const timer = setTimeout(done, time);
    wake = () => (clearTimeout(timer), done());
  });

async function run() {
  for (;;) {
    let wait = EVERY;
    try {
      await (store.models.length ? follow() : begin());
      connected();
    } catch (error) {
      if (error.status === 401) {
        await login();
        wait = 0;
      } else {
        wait = lost(error);
      }
    }
    await sleep(wait);
  }
}

async function begin() {
  setModels(await api.models());
  const rejects = await api.recentRejects(REJECTS);
  const { results } = await api.recent(0);
  addRejects(rejects.results);
  add(results);
  store.status = await api.status();
  renderModels();
  renderAll();
  refreshTaught();
}

async function follow() {
  const { results, last } = await api.recent(store.last);
  // A service whose clock was set back continues with smaller ids.
  if (last < store.last) store.last = last;
  const fresh = add(results);
  noteUnseen(fresh);
  turn += 1;
  // A result of another threshold tells at once that somebody has changed it.
  if (turn % SLOW_EVERY === 0 || fresh.some(isNews)) await refresh();
  if (fresh.length) renderResults();
  if (fresh.length) renderModels();
  say(fresh.filter((record) => record.model === store.model));
}

/** Whether a new result was decided by another threshold or model file than those that are known. */
function isNews(record) {
  const model = store.models.find(({ name }) => name === record.model);
  return model?.version !== record.version || model.threshold !== record.threshold;
}

/** Fetch the status and the models. */
async function refresh() {
  const [status, models] = await Promise.all([api.status(), api.models()]);
  store.status = status;
  setModels(models);
  refreshTaught();
  renderModels();
  renderCards();
  renderLists();
  viewer.refreshWords();
  chart.renderHistory();
}

/** Fetch what the model was taught; results do not wait for it, since examples may be scored. */
async function refreshTaught() {
  zones.refresh().catch(() => {}); // tried again soon
  const fetched = await learn.refreshTaught().catch(() => false); // tried again soon
  if (!fetched) return;
  chart.renderHistory();
  viewer.refreshWords();
}


function say(records) {
  unsaid = unsaid.concat(records).slice(-1000);
  if (!unsaid.length || Date.now() - saidAt < SAY_EVERY) return;
  announce(summary(unsaid));
  unsaid = [];
  saidAt = Date.now();
}

function renderAll() {
  viewer.render();
  renderResults();
  renderCards();
}

function renderResults() {
  viewer.follow();
  viewer.refreshWords();
  renderLists();
  chart.renderHistory();
}

function renderCards() {
  cards.renderService();
  cards.renderModel();
  cards.renderDrift();
  cards.renderState(failures === 0);
}

function renderModels() {
  const names = store.models.map((model) => model.name);
  const choice = byId("model");
  if ([...choice.options].map((option) => option.value).join("\n") !== names.join("\n")) {
    choice.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  }
  choice.value = store.model;
  byId("model-choice").hidden = names.length < 2;
  setText(byId("heading"), names.length < 2 ? store.model : "fsad-edge");
  const notes = [...store.unseen].filter(([name]) => names.includes(name));
  const text = notes.map(([name, number]) => `${name}: ${count(number, "reject")}`);
  const elsewhere = byId("elsewhere");
  if (elsewhere.textContent === text.join("")) return;
  elsewhere.replaceChildren(
    ...notes.map(([name], index) =>
      h("button", { type: "button", onclick: () => show(name) }, text[index]),
    ),
  );
}

function show(name) {
  chooseModel(name);
  store.pinned = false;
  renderModels();
  renderAll();
  refreshTaught();
}

function connected() {
  if (!failures) return;
  failures = 0;
  byId("banner").hidden = true;
  viewer.setStale(false);
  cards.renderState(true);
}

/** Show that there is no connection. Returns the time until the next attempt. */
function lost(error) {
  failures += 1;
  const wait = Math.min(LONGEST_WAIT, EVERY * 2 ** (failures - 1));
  // One late answer is not a lost connection.
  if (failures < 2) return wait;
  setText(
    byId("banner-text"),
    `${error.message} What you see may be out of date. Trying again in ${Math.round(wait / 1000)} s.`,
  );
  byId("banner").hidden = false;
  viewer.setStale(true);
  cards.renderState(false);
  return wait;
}

let asking = false;
let refused = false;

/** Ask for the token until one is given. */
function login() {
  const dialog = byId("login");
  const fault = byId("login-fault");
  fault.hidden = !refused;
  setText(fault, refused ? "That is not the token of this service." : "");
  if (!dialog.open) dialog.showModal();
  byId("token").focus();
  asking = true;
  return new Promise((done) => {
    byId("login-form").onsubmit = (event) => {
      event.preventDefault();
      api.setToken(byId("token").value.trim());
      byId("token").value = "";
      refused = true;
      asking = false;
      dialog.close();
      done();
    };
  });
}

byId("login").addEventListener("cancel", (event) => event.preventDefault());
byId("login").addEventListener("close", () => asking && byId("login").showModal());

byId("retry").onclick = () => wake();
addEventListener("online", () => wake());
byId("model").onchange = (event) => show(event.target.value);
byId("heat").onclick = viewer.toggleHeat;
byId("near").onclick = viewer.toggleNear;
byId("live").onclick = () => {
  viewer.goLive();
  byId("result").focus();
};
byId("teach").onclick = () => callShown(true);
byId("reject").onclick = () => callShown(false);

/** Call the part on display good or bad, or undo that. */
function callShown(good) {
  const record = viewer.shownRecord();
  if (!record) return;
  const entry = store.taught.get(record.id);
  if (entry && learn.isGood(entry) === good) learn.undoTaught(record);
  else if (!entry) (good ? learn.askGood : learn.askBad)(record);
}

viewer.install(renderLists);
regions.install(why.show);
scale.install(regions.refresh);
zones.install(refresh, editor.open);
editor.install();
ask.install();
box.install();
learn.install(refresh);
threshold.install(chart.renderHistory, refresh);
chart.install();
cards.install(refresh);
upload.install(async (record) => {
  viewer.pin(record);
  wake();
});
keys.install({
  h: viewer.toggleHeat,
  f: viewer.toggleNear,
  r: regions.toggle,
  ...regions.keys,
  j: () => viewer.step(-1),
  k: () => viewer.step(1),
  l: viewer.goLive,
  g: () => callShown(true),
  b: () => callShown(false),
  s: () => byId("file").click(),
  z: () => byId("zones-edit").click(),
});
run();
