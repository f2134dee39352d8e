// Sends the calls that the page of the interface shows, with a key that stays on the page.

const LONGEST = 50_000; // letters of an answer that are shown

/** The address of a call, with what was filled in. */
function address(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll("[data-in]")) {
    if (field.dataset.in === "path") {
      path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    } else if (field.dataset.in === "query" && field.value !== "") {
      query.set(field.name, field.value);
    }
  }
  return query.size ? `${path}?${query}` : path;
}

/** Headers and body; a form's files are sent as a browser sends them. */
function request(form) {
  const headers = new Headers();
  const key = document.getElementById("try-key").value.trim();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  for (const field of form.querySelectorAll('[data-in="header"]')) {
    if (field.value !== "") headers.set(field.name, field.value);
  }
  const json = form.querySelector("textarea");
  if (json) {
    headers.set("Content-Type", "application/json");
    return { headers, body: json.value };
  }
  const parts = [...form.querySelectorAll("[data-part]")];
  if (!parts.length) return { headers };
  const body = new FormData();
  for (const part of parts) {
    if (part.type === "file") for (const file of part.files) body.append(part.name, file);
    else if (part.value !== "") body.append(part.name, part.value);
  }
  return { headers, body };
}

/** What was answered, as a text. */
async function ask(form) {
  const method = form.dataset.method;
  const answer = await fetch(address(form), { method, credentials: "omit", ...request(form) });
  const kind = answer.headers.get("content-type") ?? "";
  const said = `${answer.status} ${answer.statusText} ${kind}`.trim();
  if (!/json|text/.test(kind)) return `${said}, ${(await answer.blob()).size} bytes`;
  let text = await answer.text();
  if (/\/json|\+json/.test(kind)) text = JSON.stringify(JSON.parse(text), null, 2);
  return `${said}\n\n${text.slice(0, LONGEST)}${text.length > LONGEST ? "\n…" : ""}`;
}

for (const form of document.querySelectorAll("form.try")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const shown = form.querySelector("output");
    shown.textContent = "…";
    try {
      shown.textContent = await ask(form);
    } catch (error) {
      shown.textContent = `There was no answer: ${error.message}`;
    }
  });
}
