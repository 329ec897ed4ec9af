// Keyboard shortcuts, the help that lists them, and the colours.

import { byId, remember, remembered } from "./dom.js";
import { redraw } from "./chart.js";

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";

/**
 * @param actions functions by lower-case key; `t` and `?` are the page's own.
 */
export function install(actions) {
  const all = { ...actions, t: toggleTheme, "?": showHelp };
  const box = byId("keys");
  box.checked = remembered("keys") !== "off";
  box.onchange = () => remember("keys", box.checked ? "on" : "off");
  byId("help").onclick = showHelp;
  byId("help-close").onclick = () => byId("help-dialog").close();
  byId("theme").onclick = toggleTheme;
  systemDark.addEventListener("change", renderTheme);
  renderTheme();
  addEventListener("keydown", (event) => {
    if (!box.checked || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]"))
      return;
    const action = all[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function showHelp() {
  byId("help-dialog").showModal();
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  remember("theme", theme);
  renderTheme();
  redraw();
}

function renderTheme() {
  byId("theme").setAttribute("aria-pressed", String(isDark()));
}
