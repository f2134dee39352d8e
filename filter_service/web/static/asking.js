// Requests to the service, and saying so when one fails.

export async function post(address, fields) {
  const answer = await fetch(address, {
    method: "POST",
    body: new URLSearchParams(fields),
    headers: { Accept: "application/json" },
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const error = new Error(problem.detail ?? `The service answered ${answer.status}: try again.`);
  error.status = answer.status;
  throw error;
}

export function trouble(sentence) {
  const place = document.querySelector("#trouble");
  if (!place) return;
  place.replaceChildren();
  if (!sentence) return;
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.textContent = sentence;
  place.append(notice);
}
