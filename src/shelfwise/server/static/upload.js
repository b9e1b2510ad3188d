// Progress while a file is sent and while it is worked on. Without this script the form is a plain one.
const POLL_MS = 800;
const html = { headers: { "X-Fragment": "1" } };

const form = document.getElementById("upload");
if (form) {
  const file = document.getElementById("file");
  const drop = document.getElementById("drop");
  const busy = document.getElementById("busy");
  const sent = document.getElementById("sent");
  const complaint = document.getElementById("complaint");

  const refuse = (text) => {
    sent.hidden = true;
    busy.textContent = "";
    complaint.innerHTML = text; // escaped by the server
    form.querySelector("button").disabled = false;
  };
  const send = () => {
    const request = new XMLHttpRequest();
    request.open("POST", "/upload");
    request.setRequestHeader("X-Fragment", "1");
    request.upload.addEventListener("progress", (event) => {
      sent.hidden = false;
      sent.value = event.lengthComputable ? event.loaded / event.total : 0;
      busy.textContent = "Sending…";
    });
    request.addEventListener("load", () => {
      if (request.status === 201) location.assign(request.getResponseHeader("Location"));
      else refuse(request.responseText || "The file was not taken.");
    });
    request.addEventListener("error", () => refuse("The file could not be sent. Is the service running?"));
    complaint.textContent = "";
    form.querySelector("button").disabled = true;
    request.send(new FormData(form));
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over-it");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over-it"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    send();
  });
}

const jobs = document.getElementById("jobs");
async function refreshJobs() {
  const list = jobs.querySelector("[data-working=yes]");
  if (list && !document.hidden) {
    const answer = await fetch("/upload", html).catch(() => null);
    if (answer?.ok) jobs.innerHTML = await answer.text();
  }
  setTimeout(refreshJobs, POLL_MS);
}
if (jobs) setTimeout(refreshJobs, POLL_MS);

const progress = document.getElementById("progress");
async function refreshProgress() {
  const status = progress.querySelector("[data-status]")?.dataset.status;
  if (status === "failed") return;
  const answer = await fetch(progress.dataset.address, html).catch(() => null);
  if (answer?.ok) {
    const text = await answer.text();
    const holder = document.createElement("div");
    holder.innerHTML = text;
    if (!holder.querySelector("[data-status]")) {
      location.reload(); // it is done, and the page is another one
      return;
    }
    progress.innerHTML = text;
  }
  setTimeout(refreshProgress, POLL_MS);
}
if (progress) setTimeout(refreshProgress, POLL_MS);
