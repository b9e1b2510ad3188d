// Answers as you type. Without this script the form is sent by its button.
const form = document.getElementById("try");
const answers = document.getElementById("answers");
const complaint = document.getElementById("complaint");
const busy = document.getElementById("busy");
const WAIT_MS = 200;
let timer = 0;
let asked = null;

async function ask() {
  asked?.abort();
  const mine = (asked = new AbortController());
  const slow = setTimeout(() => { busy.textContent = "Classifying…"; }, 300);
  try {
    const answer = await fetch("/", { method: "POST", body: new FormData(form), headers: { "X-Fragment": "1" }, signal: mine.signal });
    const text = await answer.text();
    if (mine !== asked) return;
    // Written by the server, every name in it escaped; and the page's policy lets nothing in it run.
    if (answer.ok) answers.innerHTML = text;
    complaint.innerHTML = answer.ok ? "" : text;
  } catch (error) {
    if (error.name !== "AbortError") complaint.textContent = "The service can't be reached. The answers below are the last ones.";
  } finally {
    clearTimeout(slow);
    if (mine === asked) busy.textContent = "";
  }
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT_MS);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  ask();
});
if (form.elements.names.value.trim()) ask();
