// The picture of a case: hold to reveal, the map and its strength, the regions of a word.

import { post, trouble } from "./asking.js";

const STRENGTH = "filter_service.map";
const $ = (selector) => document.querySelector(selector);

let revealed = null; // the original of the case that is shown, once it was asked for
let wanted = false; // somebody holds the key or the button
let kept = false; // or has asked for it to stay

export function begin() {
  revealed = null;
  wanted = kept = false;
  const strength = $("#map-strength");
  if (strength) {
    strength.value = localStorage.getItem(STRENGTH) ?? strength.value;
    strengthen();
  }
}

// Reveal

export async function hold() {
  if (wanted || !$("#reveal")) return;
  wanted = true;
  await show();
}

export function drop() {
  wanted = false;
  if (!kept) hide();
}

function keep() {
  kept = !kept;
  $("#keep").setAttribute("aria-pressed", String(kept));
  if (kept) show();
  else if (!wanted) hide();
}

async function show() {
  const stage = $("#stage");
  revealed ??= fetchOriginal();
  try {
    const picture = await revealed;
    if (stage !== $("#stage") || !(wanted || kept)) return;
    const canvas = stage.querySelector("canvas") ?? addCanvas(stage);
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.getContext("2d").drawImage(picture, 0, 0);
    canvas.hidden = false;
    stage.querySelector(".veil").textContent = "revealed";
  } catch (error) {
    revealed = null;
    kept = false;
    $("#keep")?.setAttribute("aria-pressed", "false");
    trouble(error.message);
  }
}

function hide() {
  const canvas = $("#stage canvas");
  if (!canvas) return;
  canvas.hidden = true;
  canvas.width = canvas.height = 0;
  $("#stage .veil").textContent = "blurred";
}

async function fetchOriginal() {
  const form = $("#reveal");
  const { today } = await (await post(form.action, new FormData(form))).json();
  const count = $("#revealed-today");
  if (count) count.textContent = today;
  const answer = await fetch($("#stage").dataset.original);
  if (!answer.ok) throw new Error("The picture cannot be fetched just now: try again.");
  return createImageBitmap(await answer.blob());
}

// A canvas and no <img>: it needs no address, and nothing of the picture stays when it is emptied.
function addCanvas(stage) {
  const canvas = document.createElement("canvas");
  canvas.className = "original";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "The submitted picture");
  stage.append(canvas);
  return canvas;
}

document.addEventListener("pointerdown", (event) => {
  if (event.button === 0 && event.target.closest("#stage, #hold")) hold();
});
for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, drop);
document.addEventListener("contextmenu", (event) => {
  if (event.target.closest("#stage, #hold")) event.preventDefault(); // of a long touch
});
document.addEventListener("keydown", (event) => {
  if (event.target.id === "hold" && [" ", "Enter"].includes(event.key)) hold();
});
document.addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "r" || event.target.id === "hold") drop();
});
document.addEventListener("click", (event) => {
  if (event.target.closest("#keep")) keep();
});
document.addEventListener("submit", (event) => {
  if (event.target.id === "reveal") event.preventDefault(); // holding does it
});

// The map

export function toggleMap() {
  const shown = $("#map-shown");
  if (shown) shown.checked = !shown.checked;
}

export function fade(by) {
  const strength = $("#map-strength");
  if (!strength) return;
  strength.value = Number(strength.value) + by;
  strengthen();
}

function strengthen() {
  const { value } = $("#map-strength");
  $("#stage").style.setProperty("--map", value / 100);
  localStorage.setItem(STRENGTH, value);
}

document.addEventListener("input", (event) => {
  if (event.target.id === "map-strength") strengthen();
});

// The regions of a word

function light(event) {
  const word = event.target.closest?.("[data-regions]");
  const picture = $("#stage .word-light");
  if (!word || !picture) return;
  picture.onload = () => {
    picture.hidden = false;
    $("#stage").classList.add("lit");
  };
  picture.onerror = dim; // the record has no regions
  picture.src = word.dataset.regions;
}

function dim() {
  const picture = $("#stage .word-light");
  if (!picture) return;
  picture.onload = picture.onerror = null;
  picture.hidden = true;
  $("#stage").classList.remove("lit");
}

for (const start of ["mouseover", "focusin"]) document.addEventListener(start, light);
for (const end of ["mouseout", "focusout"]) {
  document.addEventListener(end, (event) => event.target.closest?.("[data-regions]") && dim());
}
