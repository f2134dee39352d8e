// The policy editor: what is typed is checked a moment later, and sentences stand at their fields.

const PAUSE = 400; // ms without a key after which the form is checked
const form = document.querySelector("#editor");

let waiting;
let checking = null;

function fields() {
  return new URLSearchParams(new FormData(form));
}

export async function ask(address, signal, more = {}) {
  const body = fields();
  for (const [name, value] of Object.entries(more)) body.set(name, value);
  const answer = await fetch(address, {
    method: "POST",
    body,
    signal,
    headers: { Accept: "application/json" },
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? `The service answered ${answer.status}: try again.`);
}

function say(sentence) {
  const place = document.querySelector("#trouble");
  place.textContent = sentence;
  place.className = sentence ? "notice bad" : "";
}

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
    const field = form.elements[name];
    if (sentences.some((one) => one.fatal)) field?.setAttribute("aria-invalid", "true");
    else field?.removeAttribute("aria-invalid");
  }
}

function sentence({ sentence: text, fatal }) {
  const line = document.createElement("span");
  line.className = fatal ? "fatal" : "remark";
  line.textContent = text;
  return line;
}

form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(check, PAUSE);
});
