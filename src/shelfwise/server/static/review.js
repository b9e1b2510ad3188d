// The review by keyboard. The server has confirmed a decision before the next product is shown; what failed stays, and
// can be sent again: the same choice has the same key, so it is stored once.
const desk = document.getElementById("desk");
const finder = document.getElementById("finder");
const search = document.getElementById("search");
const found = document.getElementById("found");
const shown = document.getElementById("shown");
const fragment = { "X-Fragment": "1" };
let sending = false;
let failed = null;

const buttons = finder ? [...finder.querySelectorAll("#tree button")] : [];
const folds = finder ? [...finder.querySelectorAll("details")] : [];
const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const places = new Map(buttons.map((button) => {
  const fold = button.closest("details");
  const shelf = button.closest("ul").previousElementSibling;
  const above = [fold.querySelector("summary").firstChild.data, shelf?.tagName === "H3" ? shelf.textContent : ""];
  return [button, { name: plain(button.textContent), all: plain([button.textContent, ...above].join(" ")) }];
}));

function say(text, retry) {
  const line = desk.querySelector(".complaint");
  line.textContent = text;
  if (!retry) return;
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Try again";
  again.addEventListener("click", () => failed && post(...failed));
  line.append(" ", again);
  again.focus();
}

function show(text) {
  desk.innerHTML = text; // by the server, every name escaped; the page's policy lets nothing in it run
  if (finder) finder.hidden = !desk.querySelector("#decide");
  if (search) search.value = "";
  filter();
  for (const fold of folds) fold.open = false;
  desk.querySelector("#product")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function post(address, body) {
  if (sending) return;
  sending = true;
  desk.setAttribute("aria-busy", "true");
  failed = [address, body];
  try {
    const answer = await fetch(address, { method: "POST", body, headers: fragment });
    const text = await answer.text();
    if (answer.ok || answer.status === 409) {
      failed = null;
      show(text);
    } else {
      const holder = document.createElement("div");
      holder.innerHTML = text;
      say(holder.textContent || "Nothing was stored.", answer.status >= 500 || answer.status === 429);
    }
  } catch {
    say("The service can't be reached. It is not known whether this was stored; sending it again does no harm.", true);
  } finally {
    sending = false;
    desk.removeAttribute("aria-busy");
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!desk.contains(form)) return;
  event.preventDefault();
  const body = new FormData(form);
  if (event.submitter?.name) body.set(event.submitter.name, event.submitter.value);
  post(form.getAttribute("action"), body);
});

const press = (selector) => desk.querySelector(selector)?.click();
const shortcuts = {
  s: () => press('button[value="skip"]'),
  u: () => press("#undo button"),
  b: () => press("#same"),
  "/": () => search?.focus(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (event.target === search) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "Enter" && !event.target.closest("button, a, summary")) press("button.main, .main");
  else if (/^[1-5]$/.test(key)) desk.querySelectorAll(".options button")[key - 1]?.click();
  else if (shortcuts[key]) shortcuts[key]();
  else return;
  event.preventDefault();
});

function filter() {
  if (!search) return;
  const words = plain(search.value.trim()).split(/\s+/).filter(Boolean);
  const seen = new Set();
  for (const [button, place] of places) {
    const hit = !words.length || words.every((word) => place.all.includes(word));
    // While searching, a type that stands in several places is shown in the first.
    button.parentElement.hidden = !hit || (words.length > 0 && seen.has(button.value));
    if (hit) seen.add(button.value);
  }
  for (const list of finder.querySelectorAll("#tree ul")) {
    const any = list.querySelector("li:not([hidden])") !== null;
    list.hidden = !any;
    if (list.previousElementSibling?.tagName === "H3") list.previousElementSibling.hidden = !any;
  }
  for (const fold of folds) {
    const any = fold.querySelector("li:not([hidden])") !== null;
    fold.hidden = !any;
    fold.open = words.length > 0 && any;
  }
  found.textContent = words.length ? `${seen.size} of ${new Set(buttons.map((each) => each.value)).size} types` : "";
}

const visible = () => buttons.filter((button) => button.checkVisibility());
function move(step) {
  const list = visible();
  if (!list.length) return;
  const at = list.indexOf(document.activeElement);
  if (at + step < 0) search.focus();
  else list[Math.min(at + step, list.length - 1)].focus();
}

if (search) {
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      search.value = "";
      filter();
      desk.querySelector("#product")?.focus();
    } else if (event.key === "ArrowDown") move(1);
    else if (event.key === "Enter") {
      const name = plain(search.value.trim());
      const list = visible();
      // An exact name, or the only one that is left: never a guess.
      const exact = list.find((button) => places.get(button).name === name);
      const one = exact ?? (list.length === 1 ? list[0] : null);
      if (one) one.click();
      else move(1);
    } else return;
    event.preventDefault();
  });
  finder.querySelector("#tree").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Escape") search.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  let looked = "";
  let timer = 0;
  const look = (event) => {
    const button = event.target.closest("#tree button");
    if (!button || button.value === looked) return;
    clearTimeout(timer);
    timer = setTimeout(async () => {
      looked = button.value;
      const address = `/review/examples?${new URLSearchParams({ type: button.textContent })}`;
      const answer = await fetch(address, { headers: fragment }).catch(() => null);
      if (answer?.ok && button.value === looked) shown.innerHTML = await answer.text();
    }, 120);
  };
  finder.addEventListener("focusin", look);
  finder.addEventListener("pointerover", look);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("#to-search")) {
    event.preventDefault();
    search.focus();
    search.scrollIntoView({ block: "center" });
  }
});
desk.querySelector("#product")?.focus({ preventScroll: true });
