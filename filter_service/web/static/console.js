// The queue and the page of a case: keys, deciding, undoing, what comes next.
// Everything here is a form or a link that works without this script.

import { post, trouble } from "./asking.js";
import * as lease from "./lease.js";
import * as viewer from "./viewer.js";

const KEYS_OFF = "filter_service.keys-off";
const $ = (selector, within = document) => within.querySelector(selector);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let busy = false;

// Deciding: the form goes out, the next case comes in its place

async function send(form, pressed) {
  if (busy) return;
  busy = true;
  trouble("");
  $("#case")?.setAttribute("aria-busy", "true");
  try {
    const fields = new FormData(form, pressed);
    const note = $("#note");
    if (note && form.id === "together") fields.set("note", note.value);
    const { next, said, ahead } = await (await post(form.action, fields)).json();
    say(said);
    await go(next);
    prefetch(ahead);
  } catch (error) {
    if (error.status === 409) await go(location.pathname + location.search, true);
    trouble(error.message);
  } finally {
    busy = false;
    $("#case")?.removeAttribute("aria-busy");
  }
}

async function go(address, fresh = false) {
  const text = address.startsWith("/items/") && $("#case") ? await page(address, fresh) : null;
  const parsed = text && new DOMParser().parseFromString(text, "text/html");
  if (!parsed || !$("#case", parsed)) {
    location.assign(address);
    return;
  }
  for (const part of ["#case", "#verbs"]) $(part).replaceWith($(part, parsed));
  document.title = parsed.title;
  history.replaceState(null, "", address);
  scrollTo(0, 0);
  $("#case h1").focus({ preventScroll: true });
  begin();
}

function begin() {
  viewer.begin();
  lease.begin();
  if ($("#case[data-mine]")) loadGroup();
}

// What comes next is fetched while this one is looked at: its page, as it looks once it is ours,
// and its pictures, blurred

const pages = new Map();

function page(address, fresh) {
  const found = fresh ? null : pages.get(address);
  pages.delete(address);
  return found ?? load(address);
}

async function load(address) {
  const answer = await fetch(address);
  return answer.ok ? answer.text() : null;
}

function prefetch(addresses) {
  for (const known of pages.keys()) if (!addresses.includes(known)) pages.delete(known);
  for (const address of addresses) {
    if (pages.has(address)) continue;
    const soon = load(`${address}${address.includes("?") ? "&" : "?"}soon=1`);
    pages.set(address, soon);
    soon.then(warm, () => pages.delete(address));
  }
}

function warm(text) {
  const parsed = new DOMParser().parseFromString(text ?? "", "text/html");
  for (const picture of parsed.querySelectorAll("#case img[src]")) {
    new Image().src = picture.getAttribute("src");
  }
}

// Undoing

let countdown;

function say(html) {
  const place = $("#said");
  if (!place) return;
  place.innerHTML = html;
  count();
}

function count() {
  clearInterval(countdown);
  const form = $("#said .undo");
  if (!form) return;
  const all = 1000 * Number(form.dataset.seconds);
  const end = performance.now() + all;
  const tick = () => {
    const left = end - performance.now();
    if (left <= 0) {
      clearInterval(countdown);
      form.remove();
      return;
    }
    $(".seconds", form).textContent = `${Math.ceil(left / 1000)} s`;
    if (!calm.matches) $(".left i", form).style.transform = `scaleX(${left / all})`;
  };
  tick();
  countdown = setInterval(tick, 200);
}

// Look-alikes

async function loadGroup() {
  const box = $("#case");
  const link = $("#alike");
  if (!link) return;
  const address = `${link.href}${link.search ? "&" : "?"}part=1`;
  const text = await load(address).catch(() => null);
  if (text === null || box !== $("#case")) return;
  const group = $("#group");
  group.innerHTML = text;
  const found = Number($("#together", group).dataset.count);
  link.firstChild.textContent = found ? `Look-alikes: ${found} ` : "No look-alikes ";
  link.toggleAttribute("data-none", !found);
}

function toggleGroup() {
  const group = $("#group");
  if (!$("#together", group) || $("#alike").hasAttribute("data-none")) return;
  group.hidden = !group.hidden;
  if (group.hidden) {
    $("#alike").focus();
    return;
  }
  $("h2", group).focus({ preventScroll: true });
  group.scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
}

function recount(form) {
  const ticked = form.querySelectorAll("[name=also]:checked").length + 1;
  for (const place of form.querySelectorAll(".count")) place.textContent = ticked;
}

// What opens above the buttons: reasons, the note, handing over

function unfold(button, focused) {
  const details = $(`#${button.getAttribute("aria-controls")}`);
  details.open = !details.open;
  button.setAttribute("aria-expanded", String(details.open));
  if (details.open) $(focused, details).focus();
  else button.focus();
}

function foldAll() {
  let folded = false;
  for (const button of document.querySelectorAll("#verbs [aria-expanded=true]")) {
    unfold(button);
    folded = true;
  }
  return folded;
}

const PRESSED = {
  skip: (button) => unfold(button, "button"),
  write: (button) => unfold(button, "textarea"),
  hand: (button) => unfold(button, "select"),
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a");
  if (!button) return;
  if (PRESSED[button.id]) PRESSED[button.id](button);
  else if (button.matches(".help")) $("#keys").showModal();
  else if (button.matches("#group [data-key=Escape]")) toggleGroup();
  else if (button.id === "alike" && $("#together")) {
    event.preventDefault();
    toggleGroup();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("#decision, #case #together, .undo")) return;
  event.preventDefault();
  send(form, event.submitter);
});

document.addEventListener("change", (event) => {
  if (event.target.name === "also") recount(event.target.form);
  if (event.target.id === "keys-on") localStorage.setItem(KEYS_OFF, event.target.checked ? "" : "1");
});

// Keys: each button says its own; the nearest one that can be seen is pressed

const ACTING = {
  r: viewer.hold,
  R: () => $("#keep")?.click(),
  m: viewer.toggleMap,
  ",": () => viewer.fade(-10),
  ".": () => viewer.fade(10),
  "?": () => $("#keys").showModal(),
  q: () => location.assign(`/queue?${$("#case")?.dataset.queue ?? ""}`.replace(/\?$/, "")),
};

function keyed(key) {
  const places = ["#group", "#skipping", "#verbs", "#said", "main"];
  for (const place of places) {
    const found = [...document.querySelectorAll(`${place} [data-key="${CSS.escape(key)}"]`)];
    const seen = found.find((button) => button.checkVisibility());
    if (seen) return seen;
  }
  return null;
}

function typing(target) {
  return target.matches("textarea, select, input:not([type=checkbox], [type=range])");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.key === "Escape") {
    if (!foldAll() && $("#group:not([hidden])")) toggleGroup();
    return;
  }
  if (typing(event.target) || localStorage.getItem(KEYS_OFF)) return;
  const idle = event.target === document.body || event.target.id === "main";
  const key = event.key === "Enter" && idle ? "s" : event.key;
  const button = keyed(key);
  if (!button && !ACTING[key]) return;
  event.preventDefault();
  if (event.repeat) return;
  if (button) button.click();
  else ACTING[key]();
});

$("#keys-on").checked = !localStorage.getItem(KEYS_OFF);
begin();
count();
prefetch([...document.querySelectorAll("#ahead a")].map((a) => a.getAttribute("href")));
