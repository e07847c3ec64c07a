// What htmx does not do by itself: times that tick, the refresh, the dialog, notices and the theme.
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
  refreshIfDue();
}

// --- The refresh: while somebody looks, one at a time, slower while nobody answers ---------------

let signedOut = false;
let failures = 0;
let due = null; // when to refresh next; null: one period after the page was loaded

function plan() {
  const seconds = Number($("#live")?.dataset.refresh);
  due = seconds ? Date.now() + 1000 * Math.max(seconds, Math.min(60, seconds * 2 ** failures)) : Infinity;
}

function refreshIfDue() {
  if (due === null) plan();
  if (signedOut || document.hidden || Date.now() < due - 500 || $(".htmx-request")) return;
  htmx.trigger("#live", "refresh");
}

function refreshed(answered) {
  failures = answered ? 0 : failures + 1;
  const line = $("[data-unreachable]");
  if (line) line.hidden = answered;
  plan();
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
  if (status === 401) {
    signedOut = true;
    tell("signed-out");
  }
  if (target.id === "live") return refreshed(false);
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

document.addEventListener("htmx:before:swap", () => remember(document.activeElement));

document.addEventListener("htmx:after:swap", ({ target, detail: { ctx } }) => {
  if (ctx.swap === "none") return;
  if (ctx.target === dialog) {
    remember(target);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target)) {
    dialog.close();
    due = Date.now() + 1000; // see soon what came of it
  }
  document.title = $("[data-title]")?.dataset.title ?? document.title;
  tick();
  if (!dialog.open) keepFocus();
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
tick();
