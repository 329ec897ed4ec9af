// The dialog that asks for a person's name before something is changed, and once more where the
// service warns.

import { byId, remember, remembered, setText } from "./dom.js";

let asked = null; // the question, while the dialog is open
let force = false;

export function install() {
  byId("ask-form").addEventListener("submit", submit);
  byId("ask-cancel").onclick = () => byId("ask-dialog").close();
  byId("ask-dialog").addEventListener("close", () => {
    asked?.closed?.();
    asked = null;
  });
}

/**
 * Ask a question.
 *
 * `act(who, force)` does what is asked for and may throw; `forced` is on the button where it is asked
 * again, and `closed()` is called at the end.
 */
export function ask(question) {
  asked = question;
  force = false;
  setText(byId("ask-heading"), question.heading);
  setText(byId("ask-text"), question.text);
  setText(byId("ask-yes"), question.yes);
  byId("ask-fault").hidden = true;
  byId("ask-who").value = remembered("who");
  byId("ask-dialog").showModal();
  byId(remembered("who") ? "ask-yes" : "ask-who").focus();
}

async function submit(event) {
  event.preventDefault();
  const question = asked;
  const who = byId("ask-who").value.trim();
  if (!question || !who) return;
  remember("who", who);
  byId("ask-yes").disabled = true;
  try {
    await question.act(who, force);
    if (asked === question) byId("ask-dialog").close();
  } catch (error) {
    if (asked === question) refuse(error);
  } finally {
    byId("ask-yes").disabled = false;
    if (asked === question) byId("ask-yes").focus(); // a disabled button loses it
  }
}

/** Show the error. Some, as a score like a defect's, can be forced by a second confirmation. */
function refuse(error) {
  const fault = byId("ask-fault");
  fault.hidden = false;
  if (error.status === 409 && error.body.force && !force) {
    force = true;
    setText(fault, `Not done yet: ${error.message} Are you sure?`);
    setText(byId("ask-yes"), asked.forced);
  } else {
    setText(fault, error.message);
  }
  fault.scrollIntoView({ block: "nearest" });
}
