// Score an image that was dropped, chosen, or taken with the device's camera.

import * as api from "./api.js";
import { byId, count, setText, toast } from "./dom.js";
import { store } from "./store.js";

const MOST_FILES = 50;
/** Attempts for an image while the queue is full. */
const TRIES = 20;

let busy = false;
let scored = async () => {}; // called with each result

export function install(whenScored) {
  scored = whenScored;
  for (const id of ["file", "capture"]) {
    const input = byId(id);
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = ""; // so that the same file can be chosen again
      send(files);
    });
  }
  installDrop();
}

function installDrop() {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (shown) => (byId("drop").hidden = !shown);
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || show(false));
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(false);
    send([...event.dataTransfer.files]);
  });
}

const say = (text) => setText(byId("upload-state"), text);

async function send(files) {
  if (busy) return toast("The previous images are still being scored.");
  if (files.length > MOST_FILES)
    toast(`Only the first ${MOST_FILES} of ${count(files.length, "image")} are scored.`);
  busy = true;
  const queue = files.slice(0, MOST_FILES);
  try {
    for (const [index, file] of queue.entries()) {
      say(queue.length > 1 ? `Scoring ${index + 1} of ${queue.length} …` : "Scoring …");
      await sendOne(file);
    }
  } finally {
    busy = false;
    say("");
  }
}

async function sendOne(file) {
  try {
    await scored(await scoreWithRetries(file));
  } catch (error) {
    toast(`${file.name}: ${error.message}`, { error: true });
  }
}

/** Score a file. While the queue is full, wait as long as the service asks and try again. */
async function scoreWithRetries(file) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await api.score(store.model, file);
    } catch (error) {
      if (error.status !== 429 || tries === TRIES) throw error;
      say("The service is busy; trying again …");
      await new Promise((done) => setTimeout(done, error.retryAfter * 1000));
    }
  }
}
