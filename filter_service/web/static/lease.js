// The claim on a case lives as long as its page is open and somebody is there.

import { post, trouble } from "./asking.js";

const PATIENCE = 10 * 60_000; // ms without a touch after which nobody is taken to be there
const ABSENT = "Nobody has touched this page for a while: the case goes back to the queue soon. Press any key to keep it.";

let timer;
let touched = Date.now();
let staying = false; // the page goes because of a link in it: the case is kept for a while

const held = () => document.querySelector("#case[data-mine]");
const address = (box) => `/items/${box.dataset.item}/beat`;
const token = () => document.querySelector("#decision [name=csrf_token]")?.value ?? "";

export function begin() {
  clearInterval(timer);
  const box = held();
  if (!box) return;
  timer = setInterval(beat, (1000 * Number(box.dataset.lease)) / 3);
}

async function beat() {
  const box = held();
  if (!box) return;
  if (Date.now() - touched > PATIENCE) {
    trouble(ABSENT);
    return;
  }
  try {
    await post(address(box), { csrf_token: token() });
  } catch (error) {
    if (error.status === 409) delete box.dataset.mine; // somebody else has it
    if (box.isConnected) trouble(error.message);
  }
}

function touch() {
  const absent = Date.now() - touched > PATIENCE;
  touched = Date.now();
  if (!absent) return;
  trouble("");
  beat();
}

for (const sign of ["pointerdown", "pointermove", "keydown", "scroll", "touchstart"]) {
  window.addEventListener(sign, touch, { passive: true, capture: true });
}
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") beat();
});
document.addEventListener("click", (event) => {
  if (event.target.closest("a[href]")) staying = true;
});
document.addEventListener("submit", () => (staying = true), { capture: true });
window.addEventListener("pageshow", (event) => {
  staying = false;
  if (event.persisted) begin();
  beat(); // a reload keeps the case
});
window.addEventListener("pagehide", () => {
  const box = held();
  if (!box || staying) return;
  const said = new URLSearchParams({ csrf_token: token(), leaving: "1" });
  navigator.sendBeacon(address(box), said);
});
