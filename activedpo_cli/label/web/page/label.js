// The page on which people label. Texts of others become text nodes and a few kinds of elements, never markup.
"use strict";

const ACTIONS = {
  first: ["1", "Response 1 is better"],
  second: ["2", "Response 2 is better"],
  tie: ["t", "Both are equally good"],
  both_bad: ["b", "Both are bad: neither is of any use"],
  skip: ["s", "Skip this pair: I can't judge it"],
  undo: ["u", "Take back my last answer"],
  note: ["n", "Write a note to the answer"],
  guidelines: ["g", "Show the guidelines"],
  differences: ["d", "Mark the words that differ"],
  markdown: ["m", "Show Markdown"],
  help: ["?", "Show this help"],
};
const CHOICES = ["first", "second", "tie", "both_bad", "skip"];
const KINDS = ["ul", "ol", "li", "p", "blockquote", "em", "s", "strong", "code", "pre", "hr", "br",
  "table", "thead", "tbody", "tr", "th", "td"];
const ANSWERED = { enter: "person", next: "pair", answer: "saved", undo: "undone" }; // what the server's replies have in them
const FIRST_WAIT = 300, LONGEST_WAIT = 5000, SLOW = 1000, POLL = 2000, PATIENCE = 40000, UNDO_DEPTH = 100;

const WHOLE_ADDRESS = "Open the whole address that you were given, up to its last character.";

const part = (id) => document.getElementById(id);
const buttons = (action) => document.querySelectorAll(`button[data-action="${action}"]`);

let session = null;            // who labels here, and the guidelines
let current = null;            // the pair on the screen
let ready = null;              // the pair that comes next
let view = "text";
let keys = {};
let keysOn = true;
let since = 0, away = 0, hiddenSince = null;
let isSending = false, isFetching = false, isUndoing = false, isUndoWanted = false, isEnded = false, isDone = false;
let epoch = 0;                 // grows when what was asked for before is no longer wanted
let sendWait = FIRST_WAIT, fetchWait = FIRST_WAIT;
let fetchAgain = null, sendAgain = null;
let unreachable = "";
let takenBack = {};            // the pair of the answer that was taken back last, and the note that went with it
let unusable = 0;              // answers that the server has no use for

// What is kept in this browser. Each answer has an entry of its own, so that two tabs do not overwrite each other's.

const memory = new Map();
let isKept = true;

function keep(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(name, value);
  } catch {
    isKept = false;
    forget(name); // else what was kept before would count, as an older answer for the last one
  }
}

function forget(name) {
  try {
    localStorage.removeItem(name);
  } catch {
    isKept = false;
  }
}

function drop(name) {
  memory.delete(name);
  forget(name);
}

function kept(name) {
  try {
    return localStorage.getItem(name) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null;
  }
}

function keptNames() {
  const names = new Set(memory.keys());
  try {
    for (let place = 0; place < localStorage.length; place += 1) names.add(localStorage.key(place));
  } catch {
    isKept = false;
  }
  return [...names];
}

function parsed(text, otherwise) {
  try {
    return JSON.parse(text) ?? otherwise;
  } catch {
    return otherwise;
  }
}

const place = (name) => `activedpo/${session.run}/${session.person}/${name}`;

function unsent() {
  const prefix = place("answer/");
  const found = keptNames().filter((name) => name.startsWith(prefix)).map((name) => parsed(kept(name), null));
  return found.filter((answer) => answer && answer.answer_id).sort((one, other) => one.at - other.at);
}

function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The server.

class Refusal extends Error {
  constructor(status, facts) {
    super(facts.error || `status ${status}`);
    this.status = status;
    this.facts = facts;
  }
}

async function ask(what, facts) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const response = await fetch(`api/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(session ? { person: session.person, ...facts } : facts),
      credentials: "same-origin",
      signal: stop.signal,
    });
    const found = await response.json().catch(() => ({}));
    if (!response.ok) throw new Refusal(response.status, found);
    if (what in ANSWERED && !(ANSWERED[what] in found)) throw new Refusal(response.status, {});
    unreachable = "";
    return found;
  } finally {
    clearTimeout(timer);
  }
}

function take(progress) {
  session.answered = progress.answered;
  session.pairs = progress.pairs;
  session.others = progress.others;
  isDone = progress.is_done;
  part("filled").style.width = `${progress.pairs ? (100 * progress.answered) / progress.pairs : 0}%`;
}

function say(text) {
  part("status").textContent = text;
}

function sayHowFar() { // others go on while nothing is answered here
  const text = `saved ${howFar()}`;
  if (part("status").textContent.startsWith("saved ") && part("status").textContent !== text) say(text);
}

function howFar() {
  return `${session.answered} of ${session.pairs}`;
}

function showWaiting() {
  const waiting = session ? unsent() : [];
  const number = waiting.length;
  const parts = [];
  if (number && (unreachable || Date.now() - waiting[0].at >= SLOW)) {
    parts.push(number === 1 ? "Not saved yet: 1 answer waits in this page." : `Not saved yet: ${number} answers wait in this page.`);
  }
  if (unreachable) parts.push(unreachable);
  if (unusable) parts.push(`${unusable === 1 ? "1 answer" : `${unusable} answers`} could not be used: the pair is no longer asked about.`);
  if (number && !isKept) parts.push("Leave this page open until then.");
  const told = parts.join(" ");
  if (part("waiting").textContent !== told) part("waiting").textContent = told; // else it would be read aloud again
  part("waiting").hidden = !parts.length;
  document.body.dataset.unsent = String(number);
}

// What a proxy between page and server says of a request is no word on the answer in it.
const isOwnRefusal = (error) => error instanceof Refusal && session !== null && error.facts.run === session.run;

function fault(error) {
  const isRefusal = error instanceof Refusal;
  if (isRefusal && error.facts.is_stranger) return "Open the address that you were given once more.";
  if (isOwnRefusal(error) && error.status === 410) return "Labelling was ended by somebody else.";
  if (isRefusal && error.facts.error && error.status < 500) return `Refused, tell whoever runs the labelling: ${error.message}.`;
  if (isRefusal && error.facts.error) return `${error.message}; trying again.`;
  if (isRefusal && error.status < 500) return `Something else answers at this address (status ${error.status}); trying again.`;
  return "No connection; trying again.";
}

// Answers go out one after the other, the oldest first, until the server says that each is stored.

async function send() {
  if (isSending || !session) return;
  isSending = true;
  clearTimeout(sendAgain);
  try {
    for (let waiting = unsent(); waiting.length; waiting = unsent()) {
      await sendOne(waiting[0]);
      sendWait = FIRST_WAIT;
    }
  } catch (error) {
    unreachable = fault(error);
    sendWait = Math.min(2 * sendWait, LONGEST_WAIT);
    sendAgain = setTimeout(send, sendWait);
  } finally {
    isSending = false;
    showWaiting();
  }
  if (!unsent().length) {
    if (isUndoWanted) undo();
    else if (!current) refill();
  }
}

async function sendOne(answer) {
  const { at, ...facts } = answer;
  const name = place(`answer/${answer.answer_id}`);
  try {
    take(await ask("answer", facts));
    remember(answer);
    drop(name);
    say(`saved ${howFar()}`);
  } catch (error) {
    if (!isOwnRefusal(error) || ![400, 404, 409].includes(error.status)) throw error;
    if ("answered" in error.facts) take(error.facts);
    drop(name);
    isUndoWanted = false; // it may have been meant for this answer, and would take back the one before
    if (error.status === 409) say(`You had answered this pair before; that answer stands. ${howFar()} are saved`);
    else unusable += 1;
  }
}

function remember(answer) {
  const given = parsed(kept(place("given")), []).filter((other) => other.answer_id !== answer.answer_id);
  given.push({ pair: answer.pair, answer_id: answer.answer_id });
  keep(place("given"), JSON.stringify(given.slice(-UNDO_DEPTH)));
}

// Pairs: one is shown, one is ready.

async function refill() {
  if (isFetching || !session || isEnded || (current && ready)) return;
  isFetching = true;
  clearTimeout(fetchAgain);
  let wait = POLL;
  const asked = epoch;
  try {
    const before = [current, ready].filter(Boolean).map((pair) => pair.id);
    const found = await ask("next", { besides: [...new Set([...before, ...unsent().map((answer) => answer.pair)])] });
    fetchWait = FIRST_WAIT;
    take(found);
    const taken = [current, ready].filter(Boolean).map((pair) => pair.id).concat(unsent().map((answer) => answer.pair));
    if (asked !== epoch) {
      wait = 0;
    } else if (found.pair && !taken.includes(found.pair.id)) {
      found.pair.until = Date.now() + 1000 * found.pair.kept_seconds;
      if (current) ready = found.pair;
      else show(found.pair);
      if (view !== "text") look(found.pair, view).catch(() => {});
      wait = 0;
    } else if (found.pair) {
      wait = 0;
    } else if (!current) {
      showNothing();
    }
  } catch (error) {
    unreachable = fault(error);
    wait = fetchWait = Math.min(2 * fetchWait, LONGEST_WAIT);
    isEnded = isOwnRefusal(error) && error.status === 410;
    if (!current) showNothing();
  } finally {
    isFetching = false;
    showWaiting();
  }
  if (!isEnded && !(current && ready) && (wait !== POLL || !current)) fetchAgain = setTimeout(refill, wait);
}

function showNothing() {
  if (current) return;
  const number = unsent().length;
  let heading = "Waiting for the next pair …", text = "";
  if (isDone && !number) {
    heading = "Everything is answered. Thank you!";
    text = unreachable ? "Labelling has ended, and all your answers are saved. You can close this page."
      : `All your answers are saved. You can close this page, or within a few seconds take your last answer back (${keys.undo}).`;
    unreachable = "";
    sayHowFar();
  } else if (number) {
    heading = unreachable ? "Your answers wait in this page." : "Your answers are being saved …";
    text = "Leave this page open; it goes on by itself.";
  } else if (session.others && !unreachable) {
    heading = "Nothing more for you at the moment.";
    text = "The last pairs are with other people, or wait for their opinion. You can close this page; while it is open, a pair that comes free appears here.";
    sayHowFar();
  }
  sayInstead(heading, text);
}

function sayInstead(heading, text) { // of a pair
  part("main").hidden = true;
  part("nothing").hidden = false;
  if (part("nothing-heading").textContent !== heading) {
    part("nothing-heading").textContent = heading;
    part("nothing-heading").focus();
  }
  part("nothing-text").textContent = text;
}

function show(pair) {
  current = pair;
  part("nothing").hidden = true;
  part("nothing-heading").textContent = "";
  part("main").hidden = false;
  part("note").value = pair.id === takenBack.pair ? takenBack.note : "";
  part("note-part").hidden = !part("note").value;
  draw();
  window.scrollTo(0, 0);
  part("prompt").scrollTop = 0;
  part("prompt-heading").focus({ preventScroll: true });
  if (view !== "text") look(pair, view).catch(() => {}); // where it could not be had while the pair was ready
  since = performance.now();
  away = 0;
  hiddenSince = document.hidden ? since : null;
  document.body.dataset.shown = String(Number(document.body.dataset.shown || 0) + 1);
}

function seconds() {
  const now = performance.now();
  const hidden = away + (hiddenSince === null ? 0 : now - hiddenSince);
  return Math.max(0, Math.round(now - since - hidden) / 1000);
}

function answer(choice) {
  if (!current) return;
  if (isUndoWanted) { // else it would take back this answer, and not the one that was meant
    say("First your last answer is taken back, once everything is saved.");
    return;
  }
  const note = part("note").value.trim();
  const given = {
    pair: current.id, answer_id: newName(), choice, note: note || null, seconds: seconds(), view: shownView(), at: Date.now(),
  };
  keep(place(`answer/${given.answer_id}`), JSON.stringify(given));
  showReady();
  setTimeout(showWaiting, SLOW + 50);
  send();
  refill();
}

function leave(id) {
  if (ready && ready.id === id) ready = null;
  if (!current || current.id !== id) return;
  showReady();
  refill();
}

// The pair that comes next may have gone to somebody else while the one before was read for long.
function showReady() {
  const pair = ready && (Date.now() < ready.until || unreachable) ? ready : null;
  current = ready = null;
  if (pair) show(pair);
  else showNothing();
}

async function undo() {
  if (isUndoing) return;
  if (unsent().length || isSending) {
    isUndoWanted = true;
    say("Undo waits until everything is saved.");
    send();
    return;
  }
  isUndoWanted = false;
  const given = parsed(kept(place("given")), []);
  const last = given.pop();
  if (!last) {
    say("There is no answer of yours to take back.");
    return;
  }
  isUndoing = true;
  try {
    const found = await ask("undo", last);
    keep(place("given"), JSON.stringify(given));
    take(found);
    say(found.undone ? `taken back; ${howFar()} are saved` : "This answer was taken back before.");
    takenBack = { pair: last.pair, note: found.note || "" };
    current = ready = null;
    epoch += 1;
    refill();
  } catch (error) {
    if (isOwnRefusal(error) && error.status === 404) keep(place("given"), JSON.stringify(given));
    say(`Not taken back; press ${keys.undo} again. ${fault(error)}`);
  } finally {
    isUndoing = false;
  }
}

// Views of the texts.

function shownView() {
  return view !== "text" && current && current.views && current.views[view] && !current.views[view].refused ? view : "text";
}

async function look(pair, wanted) {
  pair.views ??= {};
  pair.asked ??= {};
  if (!pair.views[wanted]) {
    pair.asked[wanted] ??= ask("look", { pair: pair.id, view: wanted });
    try {
      pair.views[wanted] = await pair.asked[wanted];
    } finally {
      delete pair.asked[wanted]; // so that it is asked for again where that failed
    }
  }
  if (pair === current && view === wanted) draw();
}

async function toggle(wanted) {
  view = view === wanted ? "text" : wanted;
  if (session) keep(place("view"), view);
  draw();
  if (view === "text" || !current) return;
  try {
    await look(current, view);
    const refused = current && current.views && current.views[view] && current.views[view].refused;
    if (refused) say(`Shown as plain text: ${refused}.`);
    if (ready) await look(ready, view);
  } catch {
    say("This view needs a connection.");
  }
}

function draw() {
  for (const name of ["markdown", "differences"]) {
    for (const button of buttons(name)) button.setAttribute("aria-pressed", String(view === name));
  }
  if (!current) return;
  const nodes = shownView() === "text" ? {} : current.views[view];
  for (const name of ["prompt", "first", "second"]) {
    const box = part(name);
    box.classList.toggle("markdown", view === "markdown" && name in nodes);
    if (!(name in nodes)) box.textContent = current[name];
    else if (view === "markdown") box.replaceChildren(...nodes[name].map(built));
    else box.replaceChildren(...nodes[name].map(marked));
  }
}

function built(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [kind, start] = node[0].split(":"), inner = node.slice(1);
  const element = document.createElement(KINDS.includes(kind) ? kind : "p");
  if (kind === "h") element.className = "heading";
  if (start) element.start = Number(start);
  element.append(...inner.map(built));
  return element;
}

function marked([text, differs]) {
  if (!differs) return document.createTextNode(text);
  const element = document.createElement("mark");
  element.textContent = text;
  return element;
}

// Keys.

function usualKeys() {
  return Object.fromEntries(Object.entries(ACTIONS).map(([action, [key]]) => [action, key]));
}

function loadKeys() {
  const stored = parsed(kept("activedpo/keys"), {});
  keys = { ...usualKeys(), ...(stored.keys || {}) };
  keysOn = stored.on !== false;
  nameKeys();
}

function storeKeys() {
  keep("activedpo/keys", JSON.stringify({ keys, on: keysOn }));
  nameKeys();
}

function nameKeys() {
  for (const [action, key] of Object.entries(keys)) {
    for (const button of buttons(action)) {
      button.querySelector("kbd")?.remove();
      button.removeAttribute("aria-keyshortcuts");
      if (!keysOn) continue;
      button.setAttribute("aria-keyshortcuts", key === "?" ? "Shift+?" : key);
      const sign = document.createElement("kbd");
      sign.textContent = key;
      sign.setAttribute("aria-hidden", "true");
      button.append(sign);
    }
  }
}

function actionOf(event) {
  const typed = event.key.length === 1 ? event.key.toLowerCase() : "";
  const exact = Object.keys(keys).find((action) => keys[action] === typed);
  if (exact) return exact;
  const code = /^(?:Digit|Numpad|Key)([0-9A-Z])$/.exec(event.code);
  if (!code || /^[a-z0-9]$/.test(typed) || event.shiftKey) return null;
  return Object.keys(keys).find((action) => keys[action] === code[1].toLowerCase()) || null;
}

function pressed(event) {
  if (event.repeat && event.target instanceof HTMLButtonElement) event.preventDefault(); // a held Enter is one press
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
  const target = event.target;
  if (target instanceof HTMLTextAreaElement && event.key === "Escape") {
    event.preventDefault();
    part("prompt-heading").focus();
    return;
  }
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLInputElement) return;
  if (document.querySelector("dialog[open]") || !keysOn || !session) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  act(action);
}

function act(action) {
  if (CHOICES.includes(action)) answer(action);
  else if (action === "undo") undo();
  else if (action === "note") writeNote();
  else if (action === "guidelines") showGuidelines();
  else if (action === "help") part("help-dialog").showModal();
  else toggle(action);
}

function writeNote() {
  if (!current) return;
  part("note-part").hidden = false;
  part("note").focus();
}

function showGuidelines() {
  if (!session) return;
  const box = part("guidelines-text");
  box.classList.toggle("markdown", Boolean(session.guidelines_markdown));
  if (session.guidelines_markdown) box.replaceChildren(...session.guidelines_markdown.map(built));
  else box.textContent = session.guidelines || "There are no guidelines.";
  part("guidelines-dialog").showModal();
}

function listKeys() {
  part("keys-on").checked = keysOn;
  const rows = Object.entries(ACTIONS).map(([action, [, meaning]]) => {
    const row = document.createElement("tr"), what = document.createElement("td"), how = document.createElement("td");
    const field = document.createElement("input"), label = document.createElement("label");
    field.type = "text";
    field.id = `key-${action}`;
    field.maxLength = 1;
    field.autocomplete = "off";
    field.value = keys[action];
    field.addEventListener("focus", () => field.select());
    field.addEventListener("change", () => changeKey(action, field));
    label.htmlFor = field.id;
    label.textContent = meaning;
    what.append(label);
    how.append(field);
    row.append(what, how);
    return row;
  });
  part("key-rows").replaceChildren(...rows);
}

function changeKey(action, field) {
  const key = field.value.trim().toLowerCase();
  const other = Object.keys(keys).find((name) => name !== action && keys[name] === key);
  if (!key || other) {
    part("key-fault").textContent = key ? `“${key}” is the key for: ${ACTIONS[other][1]}` : "A key is one character.";
    field.value = keys[action];
    return;
  }
  part("key-fault").textContent = "";
  keys[action] = key;
  storeKeys();
}

// Beginning.

async function enter() {
  const token = location.hash.slice(1);
  const facts = token ? { token } : { person: sessionPerson() };
  try {
    const found = await ask("enter", facts);
    session = found;
    try {
      sessionStorage.setItem("activedpo/person", found.person);
    } catch { /* a reload then asks for the address again where two people share the browser */ }
    if (token) history.replaceState(null, "", location.pathname);
  } catch (error) {
    if (isStranger(error)) {
      say("");
      sayInstead("This address leads nowhere.", WHOLE_ADDRESS);
    } else {
      say(fault(error));
      setTimeout(enter, 1000);
    }
    return;
  }
  begin();
}

const isStranger = (error) => error instanceof Refusal && Boolean(error.facts.is_stranger);

// An address that is opened in the tab in which the page is open already loads nothing: only what is behind # changes.
async function enterAgain() {
  const token = location.hash.slice(1);
  if (!token) return;
  if (!session) {
    enter();
    return;
  }
  try {
    const found = await ask("enter", { token });
    if (found.person !== session.person || found.run !== session.run) {
      location.reload();
      return;
    }
    history.replaceState(null, "", location.pathname);
    send();
    refill();
  } catch (error) {
    say(isStranger(error) ? WHOLE_ADDRESS : fault(error));
  }
}

function sessionPerson() {
  try {
    return sessionStorage.getItem("activedpo/person");
  } catch {
    return null;
  }
}

function begin() {
  const name = document.createElement("bdi");
  name.textContent = session.name;
  part("who").replaceChildren("You label as ", name);
  part("tools").hidden = false;
  view = ["markdown", "differences"].find((name) => name === kept(place("view"))) || "text";
  take(session);
  say(`${howFar()} are saved`);
  send();
  refill();
}

document.addEventListener("keydown", pressed);
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-action]") : null;
  if (!button || !session) return;
  if (CHOICES.includes(button.dataset.action) && event.detail > 1) return; // a double click is one answer
  act(button.dataset.action);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = performance.now();
  } else if (hiddenSince !== null) {
    away += performance.now() - hiddenSince;
    hiddenSince = null;
  }
});
window.addEventListener("storage", (event) => { // this person has answered a pair in another tab
  const isAnswer = session && event.key && event.newValue && event.key.startsWith(place("answer/"));
  if (isAnswer) leave(parsed(event.newValue, {}).pair);
});
window.addEventListener("hashchange", enterAgain);
window.addEventListener("online", () => {
  send();
  refill();
});
window.addEventListener("beforeunload", (event) => {
  if (session && !isKept && unsent().length) event.preventDefault();
});
part("keys-on").addEventListener("change", (event) => {
  keysOn = event.target.checked;
  storeKeys();
});
part("keys-reset").addEventListener("click", () => {
  keys = usualKeys();
  storeKeys();
  listKeys();
});
loadKeys();
listKeys();
enter();
