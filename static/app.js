// What htmx does not do by itself: times that tick, the stream and its news, the dialog, the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const root = document.documentElement;
const dialog = $("#dialog");
const notices = $("#notices");

// --- Times: written by the server in one zone, counted here without asking it --------------------

const locale = root.lang.startsWith("en") ? "en-GB" : root.lang;
const inZone = (options) => new Intl.DateTimeFormat(locale, { timeZone: root.dataset.zone, ...options });
const inFull = inZone({ dateStyle: "full", timeStyle: "long" });
const day = inZone({ day: "numeric", month: "short" });
const clock = inZone({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const relative = new Intl.RelativeTimeFormat(locale, { style: "short" });
let clockIsOff = 0; // milliseconds by which the server's clock is ahead of this one

const now = () => Date.now() + clockIsOff;

function lasted(seconds) {
  const pad = (n) => String(n).padStart(2, "0");
  const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${pad(m)} min`;
  return m ? `${m} min ${pad(s)} s` : `${s} s`;
}

function ago(seconds) {
  if (seconds < 60) return relative.format(-seconds, "second");
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
  return relative.format(-Math.floor(seconds / 3600), "hour");
}

function moment(time, at, seconds) {
  const today = day.format(at) === day.format(now());
  const absolute = (today ? "" : `${day.format(at)} `) + clock.format(at);
  if (seconds >= 86400) return absolute;
  return time.closest("[data-times=both]") ? `${absolute}, ${ago(seconds)}` : ago(seconds);
}

function tick() {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time[data-since], time[data-moment], time[data-clock]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    const seconds = Math.max(0, Math.floor((now() - at) / 1000));
    let text = time.textContent;
    if ("since" in time.dataset) text = lasted(seconds);
    if ("moment" in time.dataset) text = moment(time, at, seconds);
    if (text !== time.textContent) time.textContent = text;
    time.title ||= inFull.format(at);
  }
  keepStream();
  refreshIfDue();
}

// --- The stream: what changes comes by itself while the tab is in sight --------------------------

const stream = $("#stream");
let connection = null; // htmx's own, which comes back by itself
let connected = false;
let heard = Date.now(); // when the stream last said anything
let speakBy = Infinity; // when the stream has to have said something
let connectAt = 0; // not before

const SILENCE = 40_000; // milliseconds; the server speaks every 15 s, so the line is dead
const LOST = 5_000; // milliseconds without a stream before the page asks by itself

function keepStream() {
  if (!stream || signedOut || document.readyState === "loading") return; // htmx starts at its end
  if (Date.now() > speakBy) hangUp();
  if (!connection && Date.now() > connectAt) {
    connectAt = Date.now() + 30_000;
    htmx.trigger(stream, "connect");
  }
}

function hangUp() {
  connection?.reader?.cancel();
}

stream?.addEventListener("htmx:sse:before:connection", (event) => {
  connected = false;
  if (signedOut) event.preventDefault(); // nothing but signing in helps
});

stream?.addEventListener("htmx:sse:after:connection", ({ detail }) => {
  connection = detail.connection;
  speakBy = Date.now() + SILENCE;
});

stream?.addEventListener("htmx:sse:error", ({ detail }) => {
  connected = false;
  if (detail.status === 401) leave();
});

stream?.addEventListener("htmx:sse:close", () => {
  connection = null;
  connected = false;
});

// --- News: changes are painted where they belong; what has no place yet is announced -------------

const news = $("#news");
const unseen = new Set(); // runs that the page does not show
let moved = false; // a run on the page belongs elsewhere now
let lastTouch = 0; // when a person last did anything
let settleAt = 0; // not before; a thousand pages that hear one change don't ask at once

function announce() {
  if (!news) return;
  const { one, many, moved: other } = news.dataset;
  const text = unseen.size > 1 ? many.replace("{n}", unseen.size) : unseen.size ? one : other;
  if (text !== news.textContent) settleAt = Math.max(settleAt, Date.now() + 3_000 * Math.random());
  news.textContent = text;
  news.hidden = !unseen.size && !moved;
}

stream?.addEventListener("htmx:sse:before:message", ({ detail: { message } }) => {
  heard = Date.now();
  speakBy = heard + SILENCE;
  connected = true; // an answer that says nothing is no stream
  unreachable(false);
  if (message.event) return;
  const wanted = $("#live").dataset.news;
  const parts = document.createElement("template");
  parts.innerHTML = message.data;
  // Another shape: there is more to it than what the stream paints.
  const shape = $("#as-of", parts.content)?.dataset.shape;
  if (shape !== undefined && shape !== $("#as-of").dataset.shape) moved = true;
  for (const part of parts.content.querySelectorAll("[data-news]")) {
    const id = part.getAttribute("hx-target").slice(1);
    if (document.getElementById(id)) continue;
    if (wanted === "all" || wanted === part.dataset.news) unseen.add(id);
  }
  before = statuses();
});

stream?.addEventListener("htmx:sse:after:message", ({ detail: { message } }) => {
  if (message.event === "stale") moved = true;
  if (message.event) return announce();
  swapped();
  announce();
});

// Nothing is moved under a hand that is at work; who only watches gets the page as it is now.
const atRest = () =>
  Date.now() - lastTouch > 5_000 && !dialog.open && !$("#live:hover") && !$("#live").contains(document.activeElement) && getSelection().isCollapsed;

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
  if (!signedOut && !document.hidden && !$(".htmx-request")) htmx.trigger("#live", "refresh");
}

function refreshed(answered) {
  failures = answered ? 0 : failures + 1;
  settleAt = Date.now() + Math.min(60_000, 1_000 * 2 ** failures);
  unreachable(!answered);
  if (answered) {
    unseen.clear();
    moved = false;
    announce();
  }
  plan();
}

function unreachable(is) {
  const line = $("[data-unreachable]");
  if (line) line.hidden = !is;
}

function leave() {
  signedOut = true;
  hangUp();
  tell("signed-out");
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
  if (signIn) signIn.search = new URLSearchParams({ next: location.pathname + location.search });
  notices.replaceChildren(notice);
}

// A plain answer is what a person should read; an error page has it in [data-why].
function why(ctx) {
  if (ctx.response?.raw.headers.get("content-type")?.startsWith("text/plain")) return ctx.text.trim();
  const page = new DOMParser().parseFromString(ctx.text ?? "", "text/html");
  return $("[data-why]", page)?.textContent.trim();
}

function failed({ target, detail: { ctx } }) {
  if (!ctx) return;
  const status = ctx.response?.status;
  if (status === 401) leave();
  if (target === stream) return; // the page asks by itself until there is one
  if (target.id === "live") {
    refreshed(false);
    if (status !== 404) return;
    unreachable(false);
    if (failures > 1) return; // said already
  }
  const line = dialog.open && $("[data-error]", dialog);
  const text = why(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  if (line && dialog.contains(target)) {
    say(line, text);
    line.hidden = false;
  } else if (status !== 401) {
    tell("failed", text);
  }
}

document.addEventListener("htmx:response:error", failed);
document.addEventListener("htmx:error", failed);

// --- Swaps: the dialog opens and closes around them, and focus is never lost ---------------------

let home = null; // the run that focus belongs to once its button is gone

function keepFocus() {
  if (document.activeElement !== document.body || !home) return;
  const run = document.getElementById(home);
  (run ? $("h1[tabindex], a.title", run) : $("#main"))?.focus({ preventScroll: true });
}

const remember = (element) => { home = element?.closest("[data-run]")?.id || home; };

document.addEventListener("htmx:before:request", ({ target }) => {
  // An answer that set out before the abort must not paint over its outcome.
  if (!dialog.contains(target)) return;
  htmx.trigger("#live", "htmx:abort");
  $("[data-error]", dialog).hidden = true;
});

document.addEventListener("htmx:after:request", ({ target, detail: { ctx } }) => {
  const date = Date.parse(ctx.response.headers.get("date"));
  if (Math.abs(date - now()) > 2000) clockIsOff = date - Date.now();
  if (target.id === "live" && ctx.response.status < 400) refreshed(true);
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
  const changes = [];
  for (const run of document.querySelectorAll("[data-status]")) {
    const was = before.get(run.id);
    if (!was || was.status === run.dataset.status) continue;
    const name = run.dataset.name ?? $("h1, a.title", run)?.textContent;
    changes.push(`${name}: ${$("[data-badge]", run)?.textContent}`);
    if (was.concluded === run.dataset.concluded) continue;
    $(`[data-about="${run.id}"]`, notices)?.remove();
    if ($("#live").dataset.page === "now") moved = true;
  }
  if (changes.length) speak(changes.join(". "));
  const wrong = whatIsWrong();
  if (wrong !== trouble) speak(wrong || $("#said")?.dataset.seen);
  trouble = wrong;
  before = statuses();
  document.title = $("[data-title]")?.dataset.title ?? document.title;
  tick();
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

// --- Clicks -------------------------------------------------------------------------------------

document.addEventListener("click", ({ target }) => {
  if (target === dialog || target.closest("[data-close]")) dialog.close();
  if (target.closest("[data-dismiss]")) {
    target.closest(".notice").remove();
    $("#main").focus({ preventScroll: true });
  }
  if (target.closest("[data-theme-toggle]")) {
    const next = { light: "dark", dark: "system" }[root.dataset.theme] ?? "light";
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // Storage is blocked: the choice lasts for this page.
    }
  }
});

$("[data-theme-toggle]").hidden = false;
setInterval(tick, 1000);
document.addEventListener("DOMContentLoaded", tick);
tick();
