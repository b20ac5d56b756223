// The page: a history that stays here, and what the endpoint recommends by it. No framework, nothing from elsewhere.

const at = (id) => document.getElementById(id);
const mine = { history: [], hidden: [] }; // items as the endpoint tells them, oldest first
const WAIT = 180; // milliseconds without a key before a search is asked
const POPULARITY = "popularity"; // a column by which who has no history yet is answered
const TRAINED = { // how the model was, by its card
  federated: "· trained by federated learning: from the sum of what clients learned, each from its own history",
  central: "· trained centrally, on histories that were pooled",
};
let key = sessionStorage.getItem("fedrec-key") ?? "";
let fallback = null; // what the endpoint answers by where there is no history

class Refusal extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function ask(path, body) {
  const headers = { ...(body && { "content-type": "application/json" }), ...(key && { "x-api-key": key }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Refusal(answer.status, told.detail);
  return told;
}

// Recommendations: only the answer to the latest question is shown.

let asked = 0;

async function recommend() {
  const turn = ++asked;
  show.history();
  if (!mine.history.length && !fallback) { show.items({ items: [] }); return; }
  at("recommended").ariaBusy = "true";
  try {
    const answer = await ask("v1/recommend", {
      history: mine.history.map((item) => item.item_id),
      exclude: mine.hidden.map((item) => item.item_id),
      k: 12, explain: true, details: true, diversity: Number(at("diversity").value),
    });
    if (turn === asked) { show.problem(null); show.items(answer); }
  } catch (problem) {
    if (turn === asked) show.problem(problem);
  } finally {
    if (turn === asked) at("recommended").ariaBusy = "false";
  }
}

function add(item) {
  mine.history = [...mine.history.filter((known) => known.item_id !== item.item_id), item];
  recommend();
}

function remove(item) {
  mine.history = mine.history.filter((known) => known.item_id !== item.item_id);
  recommend();
}

function hide(item) {
  mine.hidden = [...mine.hidden, item];
  recommend();
}

// What is seen.

const described = (item) => Object.entries(item.columns ?? {}).filter(([name]) => name !== POPULARITY).map(([, value]) => value);
const about = (item) => described(item).flat().filter((value) => value !== null).slice(0, 5).join(" · ");
const told = (item) => (about(item) ? `${item.title}, ${about(item)}` : item.title);

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.ariaLabel = label;
  made.onclick = act;
  return made;
}

const show = {
  history() {
    at("history").replaceChildren(...mine.history.toReversed().map((item) => {
      const line = document.createElement("li");
      const title = document.createElement("span");
      title.textContent = item.title;
      line.append(title, button("×", `Remove ${item.title}`, () => remove(item)));
      return line;
    }));
    at("empty").hidden = mine.history.length > 0;
    at("clear").hidden = !mine.history.length && !mine.hidden.length;
  },

  items({ items, fallback: popular }) {
    const best = Math.max(...items.map((item) => item.score), 1e-9);
    at("recommended-title").textContent = popular ? "Popular" : "For me";
    at("variety").hidden = Boolean(popular);
    at("scale").hidden = !items.length;
    at("scale").textContent = popular
      ? "Popular with everybody, until the history says what is for you. A bar compares with the most popular one."
      : "A bar compares an item's score with the best one shown; it is no probability.";
    at("items").replaceChildren(...items.map((item) => {
      const card = at("card").content.firstElementChild.cloneNode(true);
      card.querySelector("h3").textContent = item.title;
      card.querySelector(".about").textContent = about(item);
      card.querySelector(".score").title = popular ? `popularity ${item.score}` : `score ${item.score.toFixed(3)}`;
      card.querySelector(".score span").style.width = `${Math.max(4, 100 * item.score / best)}%`;
      const reasons = (item.because ?? []).filter((reason) => reason.weight > 0).slice(0, 2);
      card.querySelector(".why").textContent = reasons.length ? `Because of ${reasons.map((r) => r.title).join(" and ")}` : "";
      const like = card.querySelector(".like"), away = card.querySelector(".hide");
      like.textContent = "♥ Like"; like.ariaLabel = `Like ${item.title}`; like.onclick = () => add(item);
      away.textContent = "Hide"; away.ariaLabel = `Hide ${item.title}`; away.onclick = () => hide(item);
      return card;
    }));
    at("status").textContent = items.length ? `${items.length} recommendations; the first is ${items[0].title}` : "";
  },

  problem(problem) {
    at("problem").hidden = !problem;
    at("problem").textContent = problem?.message ?? "";
    at("key").hidden = problem?.status !== 401;
    if (problem?.status === 401) at("api-key").focus();
  },

  found(items) {
    at("found").replaceChildren(...items.map((item, place) => {
      const line = document.createElement("li");
      line.id = `found-${place}`;
      line.role = "option";
      line.ariaSelected = "false";
      const detail = document.createElement("div");
      detail.className = "quiet";
      detail.textContent = about(item);
      line.append(item.title, detail);
      line.onmousedown = (event) => { event.preventDefault(); choose(item); };
      return line;
    }));
    found = items;
    chosen = -1;
    at("found").hidden = !items.length;
    at("search").ariaExpanded = String(items.length > 0);
    at("search").removeAttribute("aria-activedescendant");
  },
};

// Search: a combobox, by keyboard as by mouse.

let found = [], chosen = -1, waiting = 0, searched = 0;

function choose(item) {
  at("search").value = "";
  show.found([]);
  add(item);
}

function mark(place) {
  chosen = (place + found.length) % found.length;
  [...at("found").children].forEach((line, number) => { line.ariaSelected = String(number === chosen); });
  at("found").children[chosen].scrollIntoView({ block: "nearest" });
  at("search").setAttribute("aria-activedescendant", `found-${chosen}`);
}

async function search() {
  const turn = ++searched, text = at("search").value.trim();
  if (!text) { show.found([]); return; }
  try {
    const answer = await ask(`v1/search?k=8&details=true&q=${encodeURIComponent(text.slice(0, 2000))}`);
    if (turn === searched) { show.problem(null); show.found(answer.items); }
  } catch (problem) {
    if (turn === searched) show.problem(problem);
  }
}

at("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(search, WAIT); };
at("search").onblur = () => show.found([]);
at("search").onkeydown = (event) => {
  if (event.key === "Escape") { at("search").value = ""; show.found([]); }
  if (!found.length) return;
  if (event.key === "ArrowDown") { event.preventDefault(); mark(chosen + 1); }
  if (event.key === "ArrowUp") { event.preventDefault(); mark(chosen < 0 ? -1 : chosen - 1); }
  if (event.key === "Enter") { event.preventDefault(); choose(found[Math.max(chosen, 0)]); }
};
at("diversity").oninput = () => {
  const value = Number(at("diversity").value);
  at("diversity-value").textContent = value === 0 ? "none" : `${Math.round(100 * value)} %`;
  recommend();
};
at("clear").onclick = () => { mine.history = []; mine.hidden = []; recommend(); at("search").focus(); };
at("key").onsubmit = (event) => {
  event.preventDefault();
  key = at("api-key").value;
  sessionStorage.setItem("fedrec-key", key);
  show.problem(null);
  begin();
};

async function begin() {
  try {
    const { models: [model] } = await ask("v1/models");
    at("model").textContent = `${model.items.toLocaleString("en")} items · ${model.model_version}`;
    at("trained").textContent = TRAINED[model.mode] ?? "";
    fallback = model.fallback;
    recommend();
  } catch (problem) {
    if (problem.status === 503) { setTimeout(begin, 500); return; } // it is loading
    show.problem(problem);
  }
}

show.history();
begin();
