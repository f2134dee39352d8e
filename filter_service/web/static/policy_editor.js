// The policy editor: what is typed is checked a moment later, and sentences stand at their fields.
// Beside each class its margins, a slider along them, and what the threshold would do.

const PAUSE = 400; // ms without a key after which the form is checked
const form = document.querySelector("#editor");

let waiting;
let checking = null;

async function ask(address, signal) {
  const answer = await fetch(address, {
    method: "POST",
    body: new URLSearchParams(new FormData(form)),
    signal,
    headers: { Accept: "application/json" },
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const error = new Error(problem.detail ?? `The service answered ${answer.status}: try again.`);
  error.status = answer.status;
  throw error;
}

function say(sentence) {
  const place = document.querySelector("#trouble");
  place.textContent = sentence;
  place.className = sentence ? "notice bad" : "";
}

// What is typed

async function check() {
  checking?.abort();
  const mine = (checking = new AbortController());
  try {
    const found = await (await ask("/policies/editor/check", mine.signal)).json();
    say("");
    show(found);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

function show({ said, note }) {
  const unchecked = document.querySelector("#unchecked");
  unchecked.hidden = !note;
  unchecked.textContent = note;
  for (const place of form.querySelectorAll("[data-said]")) {
    const name = place.dataset.said;
    const sentences = said[name] ?? [];
    place.replaceChildren(...sentences.map(sentence));
    const typed = form.elements[name];
    if (sentences.some((one) => one.fatal)) typed?.setAttribute("aria-invalid", "true");
    else typed?.removeAttribute("aria-invalid");
  }
}

function sentence({ sentence: text, fatal }) {
  const line = document.createElement("span");
  line.className = fatal ? "fatal" : "remark";
  line.textContent = text;
  return line;
}

// What a threshold would do: one question at a time, and then the newest one

const asking = new Map(); // by class: whether a question is out, and what is to be asked next

async function effects(number, part) {
  const state = asking.get(number) ?? {};
  asking.set(number, state);
  if (state.out) {
    state.next = state.next === "all" ? "all" : part;
    return;
  }
  state.out = true;
  try {
    await load(number, part);
  } finally {
    state.out = false;
  }
  const { next } = state;
  state.next = null;
  if (next) await effects(number, next);
}

async function load(number, part) {
  const whole = document.querySelector(`#c${number}-effects`);
  if (!whole) return;
  const place = part === "all" ? whole : document.querySelector(`#c${number}-${part}`);
  if (!place) return;
  whole.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(`/policies/editor/effects?number=${number}&part=${part}`);
    const text = await answer.text();
    const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    place.innerHTML = text;
    if (part === "all") begin(number);
    if (focused) document.getElementById(focused)?.focus();
  } catch (error) {
    if (part === "all" || error.status !== 422) place.textContent = error.message;
  }
  whole.removeAttribute("aria-busy");
}

// Sliders lie along the margins of the chart; the fields above hold the probabilities

const KINDS = ["threshold", "certain"];
const slider = (number, kind = "threshold") => document.querySelector(`#c${number}-${kind}-slider`);
const field = (number, kind) => form.elements[`c${number}-${kind}`];

function begin(number) {
  for (const kind of KINDS) if (slider(number, kind)) place(number, kind);
}

function line(range) {
  return { a: Number(range.dataset.a), b: Number(range.dataset.b) };
}

function place(number, kind) {
  const range = slider(number, kind);
  if (!range) return;
  const text = field(number, kind).value.trim();
  const p = Number(text.replace(",", "."));
  if (!text && kind === "certain") {
    if (document.activeElement !== range) range.value = range.max;
    range.setAttribute("aria-valuetext", "never");
    draw(number, kind, null);
    return;
  }
  if (!(p > 0 && p < 1)) return;
  const { a, b } = line(range);
  const margin = (Math.log(p / (1 - p)) - b) / a;
  if (document.activeElement !== range) range.value = margin;
  range.setAttribute("aria-valuetext", `probability ${text}, margin ${margin.toFixed(2)}`);
  draw(number, kind, margin);
}

function draw(number, kind, margin) {
  const chart = document.querySelector(`#c${number}-effects .stream-margins`);
  if (!chart) return;
  const [low, high, side, wide] = ["low", "high", "side", "wide"].map((n) => Number(chart.dataset[n]));
  const share = Math.min(1, Math.max(0, ((margin ?? high) - low) / (high - low)));
  const x = side + (wide - 2 * side) * share;
  const mark = chart.querySelector(`.${kind}`);
  mark.setAttribute("transform", `translate(${x} 0)`);
  const left = x > 0.8 * wide; // as the drawing has it: the name stands left of the line
  mark.lastElementChild.setAttribute("text-anchor", left ? "end" : "start");
  mark.lastElementChild.setAttribute("x", left ? -5 : 5);
  mark.setAttribute("visibility", margin === null ? "hidden" : "visible");
  if (kind !== "threshold") return;
  const over = chart.querySelector(".over");
  over.setAttribute("x", x);
  over.setAttribute("width", Math.max(0, wide - side - x));
}

function slid(number, range) {
  const { a, b } = line(range);
  const { kind } = range.dataset;
  const p = 1 / (1 + Math.exp(-(a * Number(range.value) + b)));
  const written = Number(Math.min(1 - 1e-6, Math.max(1e-6, p)).toPrecision(6));
  field(number, kind).value = kind === "certain" && range.value === range.max ? "" : written;
  place(number, kind);
  effects(number, "figures");
}

form.addEventListener("input", (event) => {
  clearTimeout(waiting);
  const { target } = event;
  const number = target.closest("[data-class]")?.dataset.class;
  const kind = KINDS.find((one) => target.name?.endsWith(`-${one}`));
  if (target.matches(".slider")) slid(number, target);
  else if (kind) {
    place(number, kind);
    effects(number, "figures");
  } else {
    waiting = setTimeout(() => retyped(number), PAUSE);
    return;
  }
  waiting = setTimeout(check, PAUSE);
});

async function retyped(number) {
  await check();
  if (number) effects(number, "all");
  else for (const seen of asking.keys()) effects(seen, "all");
}

form.addEventListener("click", (event) => {
  const number = event.target.closest("[data-phrases]")?.dataset.phrases;
  if (!number) return;
  event.preventDefault();
  load(number, "phrases");
});

// Classes are asked about when somebody comes to them

const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    const number = target.dataset.effects;
    if (slider(number)) {
      asking.set(number, {});
      begin(number);
    } else effects(number, "all");
  }
}, { rootMargin: "300px" });

for (const one of form.querySelectorAll("[data-effects]")) watcher.observe(one);
