// What htmx does not do by itself: times that tick, the stream and its news, dialogs, keys, the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const root = document.documentElement;
const dialog = $("#dialog");
const notices = $("#notices");

// What a person chose in this browser. Where storage is blocked it lasts for the page.
function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {}
}

function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {}
}

// --- Times: written by the server in one zone, counted here without asking it --------------------

const locale = root.lang.startsWith("en") ? "en-GB" : root.lang;
// Made when first asked for: a new tab's first one takes a browser 10 ms.
function inZone(options) {
  let format;
  return (at) => (format ??= new Intl.DateTimeFormat(locale, { timeZone: root.dataset.zone, ...options })).format(at);
}
const inFull = inZone({ dateStyle: "full", timeStyle: "long" });
const day = inZone({ day: "numeric", month: "short" });
const dayOfAYear = inZone({ day: "numeric", month: "short", year: "numeric" });
const year = inZone({ year: "numeric" });
const clock = inZone({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let clockIsOff = 0; // milliseconds by which the server's clock is ahead of this one

const now = () => Date.now() + clockIsOff;

function setClock(headers) {
  const date = Date.parse(headers.get("date"));
  if (Math.abs(date - now()) > 2000) clockIsOff = date - Date.now();
}

const words = JSON.parse($("#words").textContent); // translated: templates/base.html
const worded = (key, part) => words[key].replace(/%\(\w+\)s/, () => part);

// In two units at most; `brief` leaves out a second one of which there is nothing.
function lasted(seconds, brief = false) {
  const pad = (n) => String(n).padStart(2, "0");
  const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  const [first, second] = d ? [["d", d], ["h", h]] : h ? [["h", h], ["min", pad(m)]] : m ? [["min", m], ["s", pad(s)]] : [["s", s]];
  const units = second && !(brief && !Number(second[1])) ? [first, second] : [first];
  return units.map(([unit, n]) => worded(unit, n)).join(" ");
}

// Within a sentence seconds say nothing once there are minutes.
const soFar = (seconds) => worded("for", lasted(seconds < 60 ? seconds : seconds - (seconds % 60), true));

// In one unit: what is over is not counted by the second.
function ago(seconds) {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["min", 60] : ["h", 3600];
  return worded("ago", worded(unit, Math.floor(seconds / size)));
}

// What has not come when it should is due, not past.
function until(at) {
  const seconds = Math.ceil((at - now()) / 1000);
  return seconds > 0 ? worded("in", lasted(seconds)) : words.due;
}

function onTheClock(at) {
  if (dayOfAYear(at) === dayOfAYear(now())) return clock(at);
  return `${(year(at) === year(now()) ? day : dayOfAYear)(at)} ${clock(at)}`;
}

// What is longer ago than a day is told by the clock.
const isRelative = (time, seconds) => seconds < 86400 && !time.closest("[data-times=both]");

function moment(time, at, seconds) {
  if (isRelative(time, seconds)) return ago(seconds);
  if (seconds < 86400) return `${onTheClock(at)}, ${ago(seconds)}`;
  return ours.has(time) ? onTheClock(at) : time.textContent;
}

// Whether a clock says no day, as on a page that the server has just written.
const isShort = (time) => time.textContent.length === "00:00:00".length;

const ours = new WeakSet(); // times that are not as the server wrote them

function write(time, text) {
  if (!time.firstChild) time.append("");
  if (time.firstChild.data === text) return;
  time.firstChild.data = text;
  ours.add(time);
}

// Ears get no tooltip: they hear the time on the clock beside one that is only relative.
function speakInFull(time, is) {
  const spoken = $(".unseen", time);
  if (!is) return spoken?.remove();
  if (spoken) return;
  const full = document.createElement("span");
  full.className = "unseen";
  full.textContent = `, ${time.title}`;
  time.append(full);
}

// A bar ends where its run is far overdue; until it has grown once there is nothing to see of it.
function grow(bar) {
  const { since, lateAfter, veryLateAfter } = bar.dataset;
  const seconds = Math.max(0, (now() - Date.parse(since)) / 1000);
  $(".spent", bar).setAttribute("width", Math.min(100, (100 * seconds) / veryLateAfter).toFixed(1));
  bar.dataset.level = seconds > veryLateAfter ? 2 : seconds > lateAfter ? 1 : 0;
}

// Bars of steps are in seconds of their run's axis, which grows with them once they reach its end.
function growSteps(list) {
  const seconds = (now() - Date.parse(list.dataset.began)) / 1000;
  for (const step of list.querySelectorAll("[data-going]")) {
    const spent = $(".spent", step);
    spent?.setAttribute("width", Math.max(1, seconds - spent.getAttribute("x")).toFixed(1));
    const { lateAt, veryLateAt } = step.dataset;
    if (!lateAt) continue;
    step.dataset.late = seconds > veryLateAt ? 2 : seconds > lateAt ? 1 : 0;
    for (const said of step.querySelectorAll("[data-passed]")) said.hidden = said.dataset.passed !== step.dataset.late;
  }
  const bars = list.querySelectorAll(".bar");
  // So little more could not be seen, and there may be hundreds.
  if (!bars.length || seconds < bars[0].viewBox.baseVal.width * 1.005) return;
  for (const bar of bars) bar.setAttribute("viewBox", `0 0 ${Math.ceil(seconds)} 4`);
  const end = $(".axis time:last-of-type", list.parentElement);
  end.dateTime = new Date(now()).toISOString();
  end.title = "";
}

function count() {
  document.querySelectorAll("[data-began]").forEach(growSteps);
  document.querySelectorAll(".pace").forEach(grow);
  for (const time of document.querySelectorAll("time[data-since], time[data-moment], time[data-clock], time[data-until]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    const seconds = Math.max(0, Math.floor((now() - at) / 1000));
    time.title ||= inFull(at);
    if ("since" in time.dataset) write(time, "words" in time.dataset ? soFar(seconds) : lasted(seconds));
    if ("clock" in time.dataset && (started || !isShort(time))) write(time, onTheClock(at));
    if ("until" in time.dataset) write(time, until(at));
    if ("moment" in time.dataset) {
      write(time, moment(time, at, seconds));
      speakInFull(time, isRelative(time, seconds));
    }
  }
}

function tick() {
  if (document.hidden) return;
  count();
  keepStream();
  refreshIfDue();
  clearPast();
}

// --- The stream: what changes comes by itself while the tab is in sight --------------------------

const stream = $("#stream");
let started = false; // htmx has
let connection = null; // htmx's own, which comes back by itself
let connected = false;
let heard = Date.now(); // when the stream last said anything
let speakBy = Infinity; // when the stream has to have said something
let connectAt = 0; // not before

const SILENCE = 40_000; // milliseconds; the server speaks every 15 s, so the line is dead
const LOST = 5_000; // milliseconds without a stream before the page asks by itself

function keepStream() {
  if (!stream || signedOut || !started) return;
  if (Date.now() > speakBy) hangUp();
  if (!connection && Date.now() > connectAt) {
    connectAt = Date.now() + 30_000;
    htmx.trigger(stream, "connect");
  }
}

function hangUp() {
  connection?.reader?.cancel();
}

// The page asks by itself some seconds from here on, however long nothing was to be said before.
function lost() {
  if (connected) heard = Date.now();
  connected = false;
}

stream?.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  ctx.fetch = async (...asked) => {
    const answer = await fetch(...asked);
    setClock(answer.headers);
    return answer;
  };
});

stream?.addEventListener("htmx:sse:before:connection", (event) => {
  lost();
  if (signedOut) event.preventDefault(); // nothing but signing in helps
});

stream?.addEventListener("htmx:sse:after:connection", ({ detail }) => {
  connection = detail.connection;
  speakBy = Date.now() + SILENCE;
});

stream?.addEventListener("htmx:sse:error", ({ detail }) => {
  lost();
  if (detail.status === 401) leave();
});

stream?.addEventListener("htmx:sse:close", () => {
  connection = null;
  lost();
});

// --- News: changes are painted where they belong; what has no place yet is announced -------------

const news = $("#news");
const unseen = new Set(); // runs that the page does not show
const heights = new Map(); // of the rows and the line that a message replaces, in pixels
let moved = false; // a run on the page belongs elsewhere now
let lastTouch = Date.now(); // when a person last did anything; who has just opened it reads
let settleAt = 0; // not before; a thousand pages that hear one change don't ask at once

// Whether what came belongs on the page; web/components/filters.py and web/components/board_cells.py say what is asked for.
function belongs({ news: status, facts }) {
  const wanted = $("#live").dataset.news ?? "none";
  if (wanted === "all" || wanted === "none") return wanted === "all";
  const asked = JSON.parse(wanted);
  const run = JSON.parse(facts);
  if (status === "stage") return run.shows.includes(asked.show) && asked.words.every((word) => run.text.includes(word));
  const any = !asked.inFlight && !asked.statuses.length;
  if (!any && !(asked.inFlight && run.inFlight) && !asked.statuses.includes(status)) return false;
  if (asked.overdue && !(run.inFlight && run.overdue)) return false;
  if (run.made < (asked.since ?? -Infinity) || run.made >= (asked.until ?? Infinity)) return false;
  return run.text.includes(asked.text);
}

function announce() {
  if (!news) return;
  const { one, many, moved: other } = news.dataset;
  const text = unseen.size > 1 ? many.replace("{n}", unseen.size) : unseen.size ? one : other;
  if (text !== news.textContent) {
    // By the first of several: where changes come without a pause, the page must not wait for their end.
    if (news.hidden) settleAt = Math.max(settleAt, Date.now() + 3_000 * Math.random());
    news.textContent = text; // set again it would be read out again
  }
  news.hidden = !unseen.size && !moved;
}

stream?.addEventListener("htmx:sse:before:message", ({ detail: { message } }) => {
  heard = Date.now();
  speakBy = heard + SILENCE;
  connected = true; // an answer that says nothing is no stream
  unreachable(message.event === "away", message.data);
  if (message.event) return;
  const parts = document.createElement("template");
  parts.innerHTML = message.data;
  // Another shape: there is more to it than what the stream paints.
  const shape = $("#as-of", parts.content)?.dataset.shape;
  if (shape !== undefined && shape !== $("#as-of").dataset.shape) moved = true;
  for (const part of parts.content.querySelectorAll("hx-partial")) {
    const id = part.getAttribute("hx-target").slice(1);
    const at = document.getElementById(id);
    if (at?.matches("tr, #as-of")) heights.set(id, at.getBoundingClientRect().height);
    if (at || !part.dataset.news || !belongs(part.dataset)) continue;
    if (part.dataset.news === "stage") moved = true; // it is no run, and has its place among others
    else unseen.add(id);
  }
  before = statuses();
});

stream?.addEventListener("htmx:sse:after:message", ({ detail: { message } }) => {
  if (message.event === "stale") moved = true;
  if (message.event) return announce();
  // What has less to say now keeps its room: what is below it stays under the hand.
  for (const [id, height] of heights) document.getElementById(id)?.style.setProperty("--had", `${height}px`);
  heights.clear();
  swapped();
  announce();
});

// Nothing is moved under a hand that is at work; who only watches gets the page as it is now.
const noHand = () => Date.now() - lastTouch > 5_000 && !$("dialog[open]") && !$("#live:hover");
const atRest = () => noHand() && !$("#live").contains(document.activeElement) && getSelection().isCollapsed;

function settle() {
  if ((unseen.size || moved) && Date.now() > settleAt && atRest()) refresh();
}

for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) {
  document.addEventListener(kind, () => { lastTouch = Date.now(); }, { passive: true });
}

news?.addEventListener("click", () => {
  $("#main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
  refresh();
});

// --- The refresh: where there is no stream; one at a time, slower while nobody answers -----------

let signedOut = false;
let failures = 0;
let due = null; // when to refresh next; null: one period after the page was loaded

function plan() {
  const seconds = Number($("#live")?.dataset.refresh);
  due = seconds ? Date.now() + 1000 * Math.max(seconds, Math.min(60, seconds * 2 ** failures)) : Infinity;
}

function refreshIfDue() {
  if (due === null) plan();
  if (connected || Date.now() - heard < LOST) return settle();
  if (Date.now() >= due - 500) refresh();
}

function refresh() {
  // A stream that is not there yet holds up nothing.
  if (!signedOut && !document.hidden && !$(".htmx-request:not(#stream)")) htmx.trigger("#live", "refresh");
}

document.addEventListener("htmx:config:request", ({ target, detail: { ctx } }) => {
  if (target.id === "live") ctx.request.timeout = 10_000; // milliseconds; it is our own database that answers
});

function refreshed(answered, text) {
  failures = answered ? 0 : failures + 1;
  settleAt = Date.now() + Math.min(60_000, 5_000 * 2 ** failures);
  unreachable(!answered, text);
  if (answered) {
    unseen.clear();
    moved = false;
    announce();
  }
  plan();
}

// No text: nobody answered at all.
function unreachable(is, text) {
  const line = $("[data-unreachable]");
  if (!line) return;
  line.hidden = !is;
  line.dataset.plain ??= line.textContent;
  line.textContent = text || line.dataset.plain;
}

function leave(text) {
  signedOut = true;
  hangUp();
  dialog.close(); // what it asks can't be done, and the way to sign in is behind it
  tell("signed-out", text);
}

// Signed in again, in another tab.
function comeBack() {
  signedOut = false;
  $("[data-sign-in]", notices)?.closest(".notice").remove();
}

document.addEventListener("visibilitychange", tick);

// --- Notices ------------------------------------------------------------------------------------

// No text, no answer: the template knows what that means there.
function say(element, text) {
  const words = $("[data-text]", element);
  if (words) words.textContent = text || words.dataset.unanswered;
}

function tell(name, text) {
  const notice = document.importNode($(`#notice-${name}`).content, true);
  say(notice, text);
  const signIn = $("[data-sign-in]", notice);
  if (signIn) {
    signIn.search = new URLSearchParams({ next: location.pathname + location.search });
    signIn.hash = location.hash; // browsers take it along
  }
  notices.replaceChildren(notice);
}

// What comes above a page moves nothing in it: the page scrolls by as much. Where that place is out of
// sight the browser sees to it by itself.
let toldIn = notices.offsetHeight; // pixels

new ResizeObserver(() => {
  const by = notices.offsetHeight - toldIn;
  toldIn += by;
  if (by > 0 && notices.getBoundingClientRect().top >= 0) scrollBy({ top: by, behavior: "instant" });
}).observe(notices);

// What has passed keeps its room where its going would move something under a hand.
function clearPast() {
  const past = $(".past", notices);
  if (past && noHand()) past.remove();
}

// A plain answer is what a person should read; an error page has it in [data-why].
function why(ctx) {
  if (ctx.response?.raw.headers.get("content-type")?.startsWith("text/plain")) return ctx.text?.trim();
  const page = new DOMParser().parseFromString(ctx.text ?? "", "text/html");
  return $("[data-why]", page)?.textContent.trim();
}

function failed({ target, detail: { ctx } }) {
  if (!ctx) return;
  const status = ctx.response?.status;
  if (status === 401) return leave(why(ctx));
  if (target === stream) return; // the page asks by itself until there is one
  if (target.matches?.(".choice > [hx-trigger=load]")) {
    target.parentElement.remove(); // what comes next has another, which asks again
    moved = true;
    return announce();
  }
  if (target.id === "live") {
    refreshed(false, status === 503 ? why(ctx) : "");
    if (status !== 404) return;
    unreachable(false);
    if (failures > 1) return; // said already
  }
  const line = dialog.open && $("[data-error]", dialog);
  const text = why(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  if (line && dialog.contains(target)) {
    say(line, text);
    line.hidden = false;
    // The button that had the focus is switched off while it waits; what is said belongs to these.
    $("input", line.closest("fieldset")).focus();
  } else {
    tell("failed", text);
  }
}

document.addEventListener("htmx:response:error", failed);
document.addEventListener("htmx:error", failed);

// --- Swaps: the dialog opens and closes around them, and focus is never lost ---------------------

let home = null; // the run that focus belongs to once its button is gone
let saying = false; // it belongs to the button that takes the place of one pressed there; that may come later

function keepFocus() {
  const at = document.activeElement;
  const next = saying && $("[data-looking] button");
  if (next && at.matches("body, h1")) {
    saying = false;
    next.focus({ preventScroll: true });
  }
  if (document.activeElement !== document.body || !home) return;
  const run = document.getElementById(home);
  (run ? $("h1[tabindex], a.title", run) : $("#main"))?.focus({ preventScroll: true });
}

const remember = (element) => { home = element?.closest("[data-run]")?.id || home; };

document.addEventListener("submit", ({ target }) => { saying = Boolean(target.closest("[data-looking]")); });

document.addEventListener("htmx:before:request", ({ target }) => {
  // An answer that set out before the abort must not paint over its outcome.
  if (!dialog.contains(target)) return;
  htmx.trigger("#live", "htmx:abort");
  $("[data-error]", dialog).hidden = true;
});

document.addEventListener("htmx:after:request", ({ target, detail: { ctx } }) => {
  setClock(ctx.response.headers);
  if (ctx.response.status >= 400) return;
  if (signedOut) comeBack();
  if (target.id === "live") refreshed(true);
});

// A change of status is said once, whichever way it came.
let before = new Map();
let trouble = whatIsWrong();

function whatIsWrong() {
  return $("[data-trouble] .said")?.textContent ?? "";
}

const statuses = () =>
  new Map([...document.querySelectorAll("[data-status]")].map(({ id, dataset }) => [id, { ...dataset }]));

// Added below what may not have been read out yet.
function speak(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("#said")?.append(line);
  setTimeout(() => line.remove(), 5_000);
}

function swapped() {
  count(); // what is read out below is as short as it is shown
  const changes = [];
  for (const run of document.querySelectorAll("[data-status]")) {
    const was = before.get(run.id);
    const name = run.dataset.name ?? $("h1, a.title", run)?.textContent;
    if (was && was.overdue !== run.dataset.overdue) {
      const late = $(".late", run);
      if (late) changes.push(`${name}: ${late.textContent}`);
      if ($("#live").dataset.page === "now") moved = true; // the worst come first there
    }
    if (was && run.dataset.lookers && was.lookers !== run.dataset.lookers) changes.push($(".lookers", run).innerText);
    if (!was || was.status === run.dataset.status) continue;
    changes.push(`${name}: ${$("[data-badge]", run)?.textContent}`);
    if (was.concluded === run.dataset.concluded) continue;
    $(`[data-about="${run.id}"]`, notices)?.classList.add("past");
    if ($("#live").dataset.page === "now") moved = true;
  }
  if (changes.length) speak(changes.join(". "));
  const wrong = whatIsWrong();
  if (wrong !== trouble) speak(wrong || $("#said")?.dataset.seen);
  trouble = wrong;
  before = statuses();
  const tab = $("[data-title]");
  document.title = tab?.dataset.title ?? document.title;
  const icon = $("link[rel=icon]");
  // Set anew it would be fetched anew.
  if (tab && icon.getAttribute("href") !== tab.dataset.icon) icon.href = tab.dataset.icon;
  showWholeLinks();
  keepSelection();
  showCurrentStep();
  if (!dialog.open) keepFocus();
}

document.addEventListener("htmx:before:swap", () => {
  remember(document.activeElement);
  before = statuses();
});

document.addEventListener("htmx:after:swap", ({ target, detail: { ctx } }) => {
  if (target === stream || ctx.response.status >= 400) return; // its messages tell; it is no answer
  if (ctx.target === dialog) {
    remember(target);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target)) {
    dialog.close();
    due = Date.now() + 1000; // see soon what came of it
  }
  swapped();
});

dialog.addEventListener("close", () => {
  if (!$(".htmx-request", dialog)) dialog.replaceChildren();
  keepFocus();
});

// --- Selected runs: kept here, since a change paints rows anew ------------------------------------

const selected = new Set(); // the values of their boxes
const BOX = "input[type=checkbox][name=run]";

// What has no box any more, because it can't be aborted or is on another page, drops out.
function keepSelection() {
  const boxes = [...document.querySelectorAll(BOX)];
  const offered = new Set(boxes.map((box) => box.value));
  for (const key of selected) if (!offered.has(key)) selected.delete(key);
  for (const box of boxes) box.checked = selected.has(box.value);
  const button = $("[data-abort-selected]");
  if (!button) return;
  $("[data-selected]", button).textContent = selected.size ? ` (${selected.size})` : "";
  button.disabled = !selected.size;
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches(BOX)) return;
  if (target.checked) selected.add(target.value);
  else selected.delete(target.value);
  keepSelection();
});

// --- Texts to copy -----------------------------------------------------------------------------------

function showWholeLinks() {
  for (const link of document.querySelectorAll("[data-whole]")) link.textContent = link.href; // to be pasted elsewhere
}

function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  const label = button.textContent;
  const done = () => {
    if (label === button.dataset.done) return; // pressed again
    button.textContent = button.dataset.done;
    speak(button.dataset.done);
    setTimeout(() => { button.textContent = label; }, 2_000);
  };
  const refused = () => {
    text.closest("details")?.toggleAttribute("open", true);
    getSelection().selectAllChildren(text); // what is left to do is left to the person
  };
  (navigator.clipboard?.writeText(text.textContent) ?? Promise.reject()).then(done, refused);
}

// --- Keys: they move about, and none of them acts on a run ----------------------------------------

const help = $("#keys");
const keysOn = $("[data-keys-on]");
const ROW = "[data-last-good], [data-dropped-for], [data-run], [data-abort-act], [data-list], [data-stage], li";

const rows = () =>
  [...document.querySelectorAll("#live a.title, #live [data-stage] > a")].filter((link) => link.checkVisibility());
const isAt = (link) => link.closest(ROW)?.contains(document.activeElement);

function move(by) {
  const links = rows();
  links[links.findIndex(isAt) + by]?.focus();
}

function moveToFailed() {
  const links = rows();
  const at = links.findIndex(isAt);
  const onwards = [...links.slice(at + 1), ...links.slice(0, at + 1)];
  onwards.find((link) => link.closest(ROW)?.dataset.status === "failure")?.focus();
}

function search() {
  const field = $("input[name=q], input[data-search]");
  field?.focus();
  field?.select();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  f: moveToFailed,
  "/": search,
  "?": () => help.showModal(),
};

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || !keysOn.checked || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A box to tick takes no text.
  if (event.target.isContentEditable || event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
  if ($("dialog[open]")) return;
  event.preventDefault();
  act();
});

keysOn.checked = kept("keys") !== "off";
keysOn.addEventListener("change", () => keep("keys", keysOn.checked ? "on" : "off"));

// --- Clicks -------------------------------------------------------------------------------------

// A menu closes when one goes elsewhere.
function closeMenus(but = null) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(but)) menu.open = false;
}

document.addEventListener("keydown", ({ key, target }) => {
  if (key !== "Escape") return;
  const menu = target.closest("details.menu[open]");
  closeMenus();
  if (menu) $("summary", menu).focus();
});

document.addEventListener("click", ({ target }) => {
  closeMenus(target);
  if (target === dialog || target.closest("[data-close]")) dialog.close();
  if (target === help) help.close();
  if (target.closest("[data-keys]")) help.showModal();
  if (target.closest("[data-dismiss]")) {
    target.closest(".notice").remove();
    $("#main").focus({ preventScroll: true });
  }
  if (target.closest("[data-copy]")) copy(target.closest("[data-copy]"));
  if (target.closest("[data-theme-toggle]")) {
    const next = { light: "dark", dark: "system" }[root.dataset.theme] ?? "light";
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    // A cookie, so that the server writes it into the page and nothing flashes.
    document.cookie = `theme=${next}; path=${$(".brand").pathname}; max-age=31536000; samesite=lax`;
  }
});

// A long list of steps starts where the run is, and stays with it until somebody scrolls it; the page
// itself stays where it is. Of a run that was never read the steps come after the page.
let placed = 0; // where its list was put

function showCurrentStep() {
  const step = $("[data-steps] [data-open]");
  const panel = step?.closest(".timeline");
  if (!panel || panel.scrollTop !== placed) return;
  const [{ top, bottom, height }, box] = [step.getBoundingClientRect(), panel.getBoundingClientRect()];
  // Of a panel that reaches below the window its upper part is what is seen.
  const end = box.top + height < innerHeight ? Math.min(box.bottom, innerHeight) : box.bottom;
  if (top < box.top || bottom > end) panel.scrollTop += top - box.top - Math.max(0, (end - box.top - height) / 2);
  placed = panel.scrollTop;
}

// Which zone that is, only the browser knows; what it said last is known before the first paint.
function offerZone(own) {
  const button = $("[data-own-zone]");
  if (!button || !own || own === root.dataset.zone || $(`[name=zone][value="${CSS.escape(own)}"]`)) return;
  button.value = own;
  button.textContent = button.dataset.label.replace("{zone}", own);
  button.hidden = false;
}

function askForZone() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (own === kept("zone")) return;
  keep("zone", own);
  offerZone(own);
}

$("[data-theme-toggle]").hidden = false;
$("[data-keys]").hidden = false;
offerZone(kept("zone"));
showCurrentStep();
showWholeLinks();
keepSelection();
setInterval(tick, 1000);
tick();
// htmx has heard it before. Not in the same task, at whose end the page is laid out.
document.addEventListener("DOMContentLoaded", () =>
  setTimeout(() => {
    started = true;
    keepStream();
    refreshIfDue();
    askForZone();
  }),
);
