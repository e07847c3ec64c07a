// What htmx does not do by itself: times that tick, the stream and its news, dialogs, keys, the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const root = document.documentElement;
const dialog = $("#dialog");
const notices = $("#notices");

// What a person chose in this browser. Where storage is blocked it lasts for the page.
function storePreference(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {}
}

function readPreference(name) {
  try {
    return localStorage.getItem(name);
  } catch {}
}

// --- Times: the server writes them in the deployment's zone; here they are rewritten in the chosen one,
// and counted without asking the server -----------------------------------------------------------

const deploymentZone = root.dataset.zone;
let zoneChoice = readPreference("zone"); // "utc" or "browser"; anything else: the deployment's zone
let browserZone = readPreference("browser-zone"); // as detected on an earlier page
let zone = deploymentZone;

function detectBrowserZone() {
  browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  storePreference("browser-zone", browserZone);
}

const zoneOf = (choice) => ({ utc: "UTC", browser: browserZone })[choice] ?? deploymentZone;

function applyZoneChoice() {
  if (zoneChoice === "browser") detectBrowserZone(); // people travel
  zone = zoneOf(zoneChoice);
  root.toggleAttribute("data-other-zone", zone !== deploymentZone);
  $("[data-zone-name]").textContent = zone;
  const zones = new Set([zone]); // each is offered once
  for (const button of document.querySelectorAll("[data-zone-choice]")) {
    const offered = zoneOf(button.dataset.zoneChoice);
    button.hidden = zones.has(offered);
    zones.add(offered);
    if (button.dataset.label) button.textContent = button.dataset.label.replace("{zone}", offered);
  }
  updateTimes();
}

function chooseZone(choice) {
  zoneChoice = choice;
  storePreference("zone", choice);
  applyZoneChoice();
  announce($(".footer > span").textContent);
  $("[data-zone-choice]:not([hidden])").focus(); // the button that was pressed is hidden
}

addEventListener("storage", ({ key, newValue }) => {
  if (key !== "zone") return;
  zoneChoice = newValue;
  applyZoneChoice();
});

const locale = root.lang.startsWith("en") ? "en-GB" : root.lang;
// Made when first needed: a new tab's first one takes a browser 10 ms.
function zonedFormat(options, language = locale) {
  let format;
  let formatZone;
  return (at) => {
    if (formatZone !== zone) format = new Intl.DateTimeFormat(language, { timeZone: zone, ...options });
    formatZone = zone;
    return format.format(at);
  };
}
const formatIsoDate = zonedFormat({ dateStyle: "short" }, "sv");
const formatClockAndZone = zonedFormat({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });
const formatFull = (at) => `${formatIsoDate(at)} ${formatClockAndZone(at)}`; // as the server's titles
const formatDay = zonedFormat({ day: "numeric", month: "short" });
const formatDate = zonedFormat({ day: "numeric", month: "short", year: "numeric" });
const formatYear = zonedFormat({ year: "numeric" });
const formatClock = zonedFormat({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let clockOffset = 0; // milliseconds by which the server's clock is ahead of this one

const serverNow = () => Date.now() + clockOffset;

function syncClock(headers) {
  const date = Date.parse(headers.get("date"));
  if (Math.abs(date - serverNow()) > 2000) clockOffset = date - Date.now();
}

const timeTexts = JSON.parse($("#time-texts").textContent); // translated: templates/base.html
const timeText = (key, part) => timeTexts[key].replace(/%\(\w+\)s/, () => part);

// In two units at most; `brief` leaves out a second one of which there is nothing.
function formatDuration(seconds, brief = false) {
  const pad = (n) => String(n).padStart(2, "0");
  const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  const [first, second] = d ? [["d", d], ["h", h]] : h ? [["h", h], ["min", pad(m)]] : m ? [["min", m], ["s", pad(s)]] : [["s", s]];
  const units = second && !(brief && !Number(second[1])) ? [first, second] : [first];
  return units.map(([unit, n]) => timeText(unit, n)).join(" ");
}

// Within a sentence seconds say nothing once there are minutes.
const formatElapsed = (seconds) => timeText("for", formatDuration(seconds < 60 ? seconds : seconds - (seconds % 60), true));

// In one unit: what is over is not counted by the second.
function formatAgo(seconds) {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["min", 60] : ["h", 3600];
  return timeText("ago", timeText(unit, Math.floor(seconds / size)));
}

// What has not come when it should is due, not past.
function formatCountdown(at) {
  const seconds = Math.ceil((at - serverNow()) / 1000);
  return seconds > 0 ? timeText("in", formatDuration(seconds)) : timeTexts.due;
}

// Formatting takes 20 µs, and a page has hundreds of times: each is formatted once in a quarter of an
// hour. Within one no day begins, in any zone.
const formattedTimes = new Map();
let formattedIn = ""; // zone and quarter

function formatTime(at) {
  const current = `${zone} ${Math.floor(serverNow() / 900_000)}`;
  if (formattedIn !== current) formattedTimes.clear();
  formattedIn = current;
  if (!formattedTimes.has(at)) formattedTimes.set(at, formatDateAndClock(at));
  return formattedTimes.get(at);
}

function formatDateAndClock(at) {
  if (formatDate(at) === formatDate(serverNow())) return formatClock(at);
  return `${(formatYear(at) === formatYear(serverNow()) ? formatDay : formatDate)(at)} ${formatClock(at)}`;
}

// What is longer ago than a day is told by the clock.
const isRelative = (time, seconds) => seconds < 86400 && !time.closest("[data-times=both]");

function formatTimeAgo(time, at, seconds) {
  if (isRelative(time, seconds)) return formatAgo(seconds);
  if (seconds < 86400) return `${formatTime(at)}, ${formatAgo(seconds)}`;
  return rewrittenTimes.has(time) || zone !== deploymentZone ? formatTime(at) : time.textContent;
}

// Whether a clock says no day, as on a page that the server has just written.
const hasNoDate = (time) => time.textContent.length === "00:00:00".length;

const rewrittenTimes = new WeakSet(); // times that are not as the server wrote them

function writeTime(time, text) {
  if (!time.firstChild) time.append("");
  if (time.firstChild.data === text) return;
  time.firstChild.data = text;
  rewrittenTimes.add(time);
}

// A screen reader reads no tooltip: beside a time that is only relative it gets the full one as text.
function toggleSpokenTime(time, isVisible) {
  const spokenTime = $(".visually-hidden", time);
  const text = `, ${time.title}`;
  if (spokenTime?.textContent === text && isVisible) return;
  spokenTime?.remove();
  if (!isVisible) return;
  const full = document.createElement("span");
  full.className = "visually-hidden";
  full.textContent = text;
  time.append(full);
}

// The full time, as title or, in an SVG title, as text. A swap brings the server's, without the mark.
function writeFullTime(time, at) {
  const isFullText = "full" in time.dataset;
  if ((time.dataset.zone ?? deploymentZone) === zone && (isFullText || time.title)) return;
  time.dataset.zone = zone;
  if (isFullText) writeTime(time, formatFull(at));
  else time.title = formatFull(at);
}

// A bar ends where its run is far overdue; until it has grown once there is nothing to see of it.
function growProgress(bar) {
  const { since, overdueAfter, criticalAfter } = bar.dataset;
  const seconds = Math.max(0, (serverNow() - Date.parse(since)) / 1000);
  $(".elapsed", bar).setAttribute("width", Math.min(100, (100 * seconds) / criticalAfter).toFixed(1));
  bar.dataset.severity = seconds > criticalAfter ? 2 : seconds > overdueAfter ? 1 : 0;
}

// Bars of steps are in seconds of their run's axis, which grows with them once they reach its end.
function growSteps(list) {
  const seconds = (serverNow() - Date.parse(list.dataset.axisStart)) / 1000;
  for (const step of list.querySelectorAll("[data-running]")) {
    const elapsed = $(".elapsed", step);
    elapsed?.setAttribute("width", Math.max(1, seconds - elapsed.getAttribute("x")).toFixed(1));
    const { overdueAt, criticalAt } = step.dataset;
    if (!overdueAt) continue;
    step.dataset.severity = seconds > criticalAt ? 2 : seconds > overdueAt ? 1 : 0;
    for (const note of step.querySelectorAll("[data-overdue-note]")) note.hidden = note.dataset.overdueNote !== step.dataset.severity;
  }
  const bars = list.querySelectorAll(".bar");
  // So little more could not be seen, and there may be hundreds.
  if (!bars.length || seconds < bars[0].viewBox.baseVal.width * 1.005) return;
  for (const bar of bars) bar.setAttribute("viewBox", `0 0 ${Math.ceil(seconds)} 4`);
  const end = $(".axis time:last-of-type", list.parentElement);
  end.dateTime = new Date(serverNow()).toISOString();
  end.title = "";
}

function updateTimes() {
  document.querySelectorAll("[data-axis-start]").forEach(growSteps);
  document.querySelectorAll(".progress").forEach(growProgress);
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    const seconds = Math.max(0, Math.floor((serverNow() - at) / 1000));
    writeFullTime(time, at);
    if ("since" in time.dataset) writeTime(time, "sentence" in time.dataset ? formatElapsed(seconds) : formatDuration(seconds));
    if ("clock" in time.dataset && (isHtmxStarted || zone !== deploymentZone || !hasNoDate(time))) writeTime(time, formatTime(at));
    if ("until" in time.dataset) writeTime(time, formatCountdown(at));
    if ("ago" in time.dataset) {
      writeTime(time, formatTimeAgo(time, at, seconds));
      toggleSpokenTime(time, isRelative(time, seconds));
    }
  }
  swapObserver.takeRecords(); // of its own writing
}

// What streams and swaps bring is rewritten before it is painted.
const swapObserver = new MutationObserver(updateTimes);
swapObserver.observe(document.body, { childList: true, characterData: true, subtree: true });

function tick() {
  if (document.hidden) return;
  updateTimes();
  ensureStream();
  refreshIfDue();
  removeConcludedNotices();
}

// --- The stream: what changes comes by itself while the tab is in sight --------------------------

const stream = $("#stream");
let isHtmxStarted = false; // htmx has
let connection = null; // htmx's own, which comes back by itself
let isConnected = false;
let lastMessageAt = Date.now(); // when the stream last said anything
let messageDueAt = Infinity; // when the stream has to have said something
let reconnectAt = 0; // not before

const STREAM_TIMEOUT = 40_000; // milliseconds; the server speaks every 15 s, so the line is dead
const RECONNECT_GRACE = 5_000; // milliseconds without a stream before the page asks by itself

function ensureStream() {
  if (!stream || isSignedOut || !isHtmxStarted) return;
  if (Date.now() > messageDueAt) closeStream();
  if (!connection && Date.now() > reconnectAt) {
    reconnectAt = Date.now() + 30_000;
    htmx.trigger(stream, "connect");
  }
}

function closeStream() {
  connection?.reader?.cancel();
}

// The page asks by itself some seconds from here on, however long nothing was to be said before.
function markDisconnected() {
  if (isConnected) lastMessageAt = Date.now();
  isConnected = false;
}

stream?.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  ctx.fetch = async (...args) => {
    const response = await fetch(...args);
    syncClock(response.headers);
    return response;
  };
});

stream?.addEventListener("htmx:sse:before:connection", (event) => {
  markDisconnected();
  if (isSignedOut) event.preventDefault(); // nothing but signing in helps
});

stream?.addEventListener("htmx:sse:after:connection", ({ detail }) => {
  connection = detail.connection;
  messageDueAt = Date.now() + STREAM_TIMEOUT;
});

stream?.addEventListener("htmx:sse:error", ({ detail }) => {
  markDisconnected();
  if (detail.status === 401) showSignedOut();
});

stream?.addEventListener("htmx:sse:close", () => {
  connection = null;
  markDisconnected();
});

// --- News: changes are painted where they belong; what has no place yet is announced -------------

const newRunsButton = $("#new-runs");
const newRunIds = new Set(); // runs that the page does not show
const heights = new Map(); // of the rows and the line that a message replaces, in pixels
let isOutdated = false; // a run on the page belongs elsewhere now
let lastActivityAt = Date.now(); // when a person last did anything; who has just opened it reads
let refreshNotBefore = 0; // not before; a thousand pages that hear one change don't ask at once

function updateNewRunsButton() {
  if (!newRunsButton) return;
  const { textOne: one, textMany: many, textChanged: changed } = newRunsButton.dataset;
  const text = newRunIds.size > 1 ? many.replace("{n}", newRunIds.size) : newRunIds.size ? one : changed;
  if (text !== newRunsButton.textContent) {
    // By the first of several: where changes come without a pause, the page must not wait for their end.
    if (newRunsButton.hidden) refreshNotBefore = Math.max(refreshNotBefore, Date.now() + 3_000 * Math.random());
    newRunsButton.textContent = text; // set again it would be read out again
  }
  newRunsButton.hidden = !newRunIds.size && !isOutdated;
}

stream?.addEventListener("htmx:sse:before:message", ({ detail: { message } }) => {
  lastMessageAt = Date.now();
  messageDueAt = lastMessageAt + STREAM_TIMEOUT;
  isConnected = true; // an answer that says nothing is no stream
  showUnreachable(message.event === "away", message.data);
  if (message.event) return;
  const parts = document.createElement("template");
  parts.innerHTML = message.data;
  // Another shape: there is more to it than what the stream paints.
  const shape = $("#data-age", parts.content)?.dataset.structure;
  if (shape !== undefined && shape !== $("#data-age").dataset.structure) isOutdated = true;
  for (const part of parts.content.querySelectorAll("hx-partial")) {
    const id = part.getAttribute("hx-target").slice(1);
    const at = document.getElementById(id);
    if (at?.matches("tr, #data-age")) heights.set(id, at.getBoundingClientRect().height);
    if (at || !part.dataset.new) continue;
    if (part.dataset.new === "stage") isOutdated = true; // only the server knows its place among the others
    else newRunIds.add(id);
  }
  previousStatuses = collectStatuses();
});

stream?.addEventListener("htmx:sse:after:message", ({ detail: { message } }) => {
  if (message.event === "stale") isOutdated = true;
  if (message.event) return updateNewRunsButton();
  // What has less to say now keeps its room: what is below it stays under the hand.
  for (const [id, height] of heights) document.getElementById(id)?.style.setProperty("--had", `${height}px`);
  heights.clear();
  afterSwap();
  updateNewRunsButton();
});

// Nothing is moved under a hand that is at work; who only watches gets the page as it is now.
const isIdle = () => Date.now() - lastActivityAt > 5_000 && !$("dialog[open]") && !$("#live:hover");
const isSafeToRefresh = () => isIdle() && !$("#live").contains(document.activeElement) && getSelection().isCollapsed;

function refreshWhenIdle() {
  if ((newRunIds.size || isOutdated) && Date.now() > refreshNotBefore && isSafeToRefresh()) refresh();
}

for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) {
  document.addEventListener(kind, () => { lastActivityAt = Date.now(); }, { passive: true });
}

newRunsButton?.addEventListener("click", () => {
  $("#main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
  refresh();
});

// --- The refresh: where there is no stream; one at a time, slower while nobody answers -----------

let isSignedOut = false;
let failures = 0;
let refreshAt = null; // when to refresh next; null: one period after the page was loaded

function scheduleRefresh() {
  const seconds = Number($("#live")?.dataset.refresh);
  refreshAt = seconds ? Date.now() + 1000 * Math.max(seconds, Math.min(60, seconds * 2 ** failures)) : Infinity;
}

function refreshIfDue() {
  if (refreshAt === null) scheduleRefresh();
  if (isConnected || Date.now() - lastMessageAt < RECONNECT_GRACE) return refreshWhenIdle();
  if (Date.now() >= refreshAt - 500) refresh();
}

function refresh() {
  // A stream that is not there yet holds up nothing.
  if (!isSignedOut && !document.hidden && !$(".htmx-request:not(#stream)")) htmx.trigger("#live", "refresh");
}

document.addEventListener("htmx:config:request", ({ target, detail: { ctx } }) => {
  if (target.id === "live") ctx.request.timeout = 10_000; // milliseconds; it is our own database that answers
});

function finishRefresh(isSuccess, text) {
  failures = isSuccess ? 0 : failures + 1;
  refreshNotBefore = Date.now() + Math.min(60_000, 5_000 * 2 ** failures);
  showUnreachable(!isSuccess, text);
  if (isSuccess) {
    newRunIds.clear();
    isOutdated = false;
    updateNewRunsButton();
  }
  scheduleRefresh();
}

// No text: nobody answered at all.
function showUnreachable(isVisible, text) {
  const line = $("[data-unreachable]");
  if (!line) return;
  line.hidden = !isVisible;
  line.dataset.plain ??= line.textContent;
  line.textContent = text || line.dataset.plain;
}

function showSignedOut(text) {
  isSignedOut = true;
  closeStream();
  dialog.close(); // what it asks can't be done, and the way to sign in is behind it
  showNotice("signed-out", text);
}

// Signed in again, in another tab.
function clearSignedOut() {
  isSignedOut = false;
  $("[data-sign-in]", notices)?.closest(".notice").remove();
}

document.addEventListener("visibilitychange", tick);

// --- Notices ------------------------------------------------------------------------------------

// No text, no answer: the template knows what that means there.
function fillMessage(element, text) {
  const textElement = $("[data-text]", element);
  if (textElement) textElement.textContent = text || textElement.dataset.noResponseText;
}

function showNotice(name, text) {
  const notice = document.importNode($(`#notice-${name}`).content, true);
  fillMessage(notice, text);
  const signIn = $("[data-sign-in]", notice);
  if (signIn) {
    signIn.search = new URLSearchParams({ next: location.pathname + location.search });
    signIn.hash = location.hash; // browsers take it along
  }
  notices.replaceChildren(notice);
}

// What comes above a page moves nothing in it: the page scrolls by as much. Where that place is out of
// sight the browser sees to it by itself.
let noticesHeight = notices.offsetHeight; // pixels

new ResizeObserver(() => {
  const delta = notices.offsetHeight - noticesHeight;
  noticesHeight += delta;
  if (delta > 0 && notices.getBoundingClientRect().top >= 0) scrollBy({ top: delta, behavior: "instant" });
}).observe(notices);

// What has passed keeps its room where its going would move something under a hand.
function removeConcludedNotices() {
  const notice = $(".concluded", notices);
  if (notice && isIdle()) notice.remove();
}

// A plain answer is what a person should read; an error page has it in [data-reason].
function responseMessage(ctx) {
  if (ctx.response?.raw.headers.get("content-type")?.startsWith("text/plain")) return ctx.text?.trim();
  const page = new DOMParser().parseFromString(ctx.text ?? "", "text/html");
  return $("[data-reason]", page)?.textContent.trim();
}

function handleFailure({ target, detail: { ctx } }) {
  if (!ctx) return;
  const status = ctx.response?.status;
  if (status === 401) return showSignedOut(responseMessage(ctx));
  if (target === stream) return; // the page asks by itself until there is one
  if (target.matches?.(".actions > [hx-trigger=load]")) {
    target.parentElement.remove(); // what comes next has another, which asks again
    isOutdated = true;
    return updateNewRunsButton();
  }
  if (target.id === "live") {
    finishRefresh(false, status === 503 ? responseMessage(ctx) : "");
    if (status !== 404) return;
    showUnreachable(false);
    if (failures > 1) return; // said already
  }
  const line = dialog.open && $("[data-error]", dialog);
  const text = responseMessage(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  if (line && dialog.contains(target)) {
    fillMessage(line, text);
    line.hidden = false;
    // The button that had the focus is switched off while it waits; what is said belongs to these.
    $("input", line.closest("fieldset")).focus();
  } else {
    showNotice("failed", text);
  }
}

document.addEventListener("htmx:response:error", handleFailure);
document.addEventListener("htmx:error", handleFailure);

// --- Swaps: the dialog opens and closes around them, and focus is never lost ---------------------

let focusRunId = null; // the run that focus belongs to once its button is gone
let isAcknowledging = false; // it belongs to the button that takes the place of one pressed there; that may come later

function restoreFocus() {
  const at = document.activeElement;
  const next = isAcknowledging && $("[data-acknowledgements] button");
  if (next && at.matches("body, h1")) {
    isAcknowledging = false;
    next.focus({ preventScroll: true });
  }
  if (document.activeElement !== document.body || !focusRunId) return;
  const run = document.getElementById(focusRunId);
  (run ? $("h1[tabindex], a.title", run) : $("#main"))?.focus({ preventScroll: true });
}

const rememberFocus = (element) => { focusRunId = element?.closest("[data-run]")?.id || focusRunId; };

document.addEventListener("submit", ({ target }) => { isAcknowledging = Boolean(target.closest("[data-acknowledgements]")); });

document.addEventListener("htmx:before:request", ({ target }) => {
  // An answer that set out before the abort must not paint over its outcome.
  if (!dialog.contains(target)) return;
  htmx.trigger("#live", "htmx:abort");
  $("[data-error]", dialog).hidden = true;
});

document.addEventListener("htmx:after:request", ({ target, detail: { ctx } }) => {
  syncClock(ctx.response.headers);
  if (ctx.response.status >= 400) return;
  if (isSignedOut) clearSignedOut();
  if (target.id === "live") finishRefresh(true);
});

// A change of status is said once, whichever way it came.
let previousStatuses = new Map();
let upstreamError = readUpstreamError();

function readUpstreamError() {
  return $("[data-upstream-error] .upstream-text")?.textContent ?? "";
}

const collectStatuses = () =>
  new Map([...document.querySelectorAll("[data-status]")].map(({ id, dataset }) => [id, { ...dataset }]));

// Added below what may not have been read out yet.
function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("#announcements")?.append(line);
  setTimeout(() => line.remove(), 5_000);
}

function afterSwap() {
  const changes = [];
  for (const run of document.querySelectorAll("[data-status]")) {
    const previous = previousStatuses.get(run.id);
    const name = run.dataset.name ?? $("h1, a.title", run)?.textContent;
    if (previous && previous.overdue !== run.dataset.overdue) {
      const badge = $(".overdue", run);
      if (badge) changes.push(`${name}: ${badge.textContent}`);
      if ($("#live").dataset.page === "now") isOutdated = true; // the worst come first there
    }
    if (previous && run.dataset.acknowledged && previous.acknowledged !== run.dataset.acknowledged) changes.push($(".acknowledged-by", run).innerText);
    if (!previous || previous.status === run.dataset.status) continue;
    changes.push(`${name}: ${$("[data-badge]", run)?.textContent}`);
    if (previous.concluded === run.dataset.concluded) continue;
    $(`[data-run-dom-id="${run.id}"]`, notices)?.classList.add("concluded");
    if ($("#live").dataset.page === "now") isOutdated = true;
  }
  if (changes.length) announce(changes.join(". "));
  const currentError = readUpstreamError();
  if (currentError !== upstreamError) announce(currentError || $("#announcements")?.dataset.restoredText);
  upstreamError = currentError;
  previousStatuses = collectStatuses();
  const tab = $("[data-title]");
  document.title = tab?.dataset.title ?? document.title;
  const icon = $("link[rel=icon]");
  // Set anew it would be fetched anew.
  if (tab && icon.getAttribute("href") !== tab.dataset.icon) icon.href = tab.dataset.icon;
  expandLinks();
  restoreSelection();
  scrollToCurrentStep();
  if (!dialog.open) restoreFocus();
}

document.addEventListener("htmx:before:swap", () => {
  rememberFocus(document.activeElement);
  previousStatuses = collectStatuses();
});

document.addEventListener("htmx:after:swap", ({ target, detail: { ctx } }) => {
  if (target === stream || ctx.response.status >= 400) return; // its messages tell; it is no answer
  if (ctx.target === dialog) {
    rememberFocus(target);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target)) {
    dialog.close();
    refreshAt = Date.now() + 1000; // see soon what came of it
  }
  afterSwap();
});

dialog.addEventListener("close", () => {
  if (!$(".htmx-request", dialog)) dialog.replaceChildren();
  restoreFocus();
});

// --- Selected runs: kept here, since a change paints rows anew ------------------------------------

const selected = new Set(); // the values of their boxes
const RUN_CHECKBOX = "input[type=checkbox][name=run]";

// What has no box any more, because it can't be aborted or is on another page, drops out.
function restoreSelection() {
  const boxes = [...document.querySelectorAll(RUN_CHECKBOX)];
  const available = new Set(boxes.map((box) => box.value));
  for (const key of selected) if (!available.has(key)) selected.delete(key);
  for (const box of boxes) box.checked = selected.has(box.value);
  const button = $("[data-abort-selected]");
  if (!button) return;
  $("[data-selected]", button).textContent = selected.size ? ` (${selected.size})` : "";
  button.disabled = !selected.size;
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches(RUN_CHECKBOX)) return;
  if (target.checked) selected.add(target.value);
  else selected.delete(target.value);
  restoreSelection();
});

// --- Texts to copy -----------------------------------------------------------------------------------

function expandLinks() {
  for (const link of document.querySelectorAll("[data-absolute-url]")) link.textContent = link.href; // to be pasted elsewhere
}

function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  const label = button.textContent;
  const showCopied = () => {
    if (label === button.dataset.doneLabel) return; // pressed again
    button.textContent = button.dataset.doneLabel;
    announce(button.dataset.doneLabel);
    setTimeout(() => { button.textContent = label; }, 2_000);
  };
  const selectText = () => {
    text.closest("details")?.toggleAttribute("open", true);
    getSelection().selectAllChildren(text); // what is left to do is left to the person
  };
  (navigator.clipboard?.writeText(text.textContent) ?? Promise.reject()).then(showCopied, selectText);
}

// --- Keys: they move about, and none of them acts on a run ----------------------------------------

const shortcutsDialog = $("#shortcuts");
const shortcutsToggle = $("[data-shortcuts-toggle]");
const ROW_SELECTOR = "[data-last-success], [data-superseded-by], [data-run], [data-abort-row], [data-bulk-abort-row], [data-stage], li";

const rowLinks = () =>
  [...document.querySelectorAll("#live a.title, #live [data-stage] > a")].filter((link) => link.checkVisibility());
const hasFocus = (link) => link.closest(ROW_SELECTOR)?.contains(document.activeElement);

function moveFocus(delta) {
  const links = rowLinks();
  links[links.findIndex(hasFocus) + delta]?.focus();
}

function focusNextFailed() {
  const links = rowLinks();
  const at = links.findIndex(hasFocus);
  const onwards = [...links.slice(at + 1), ...links.slice(0, at + 1)];
  onwards.find((link) => link.closest(ROW_SELECTOR)?.dataset.status === "failure")?.focus();
}

function focusSearch() {
  const field = $("input[name=q], input[data-search]");
  field?.focus();
  field?.select();
}

const SHORTCUTS = {
  j: () => moveFocus(1),
  k: () => moveFocus(-1),
  f: focusNextFailed,
  "/": focusSearch,
  "?": () => shortcutsDialog.showModal(),
};

document.addEventListener("keydown", (event) => {
  const action = SHORTCUTS[event.key];
  if (!action || !shortcutsToggle.checked || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A box to tick takes no text.
  if (event.target.isContentEditable || event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
  if ($("dialog[open]")) return;
  event.preventDefault();
  action();
});

shortcutsToggle.checked = readPreference("keys") !== "off";
shortcutsToggle.addEventListener("change", () => storePreference("keys", shortcutsToggle.checked ? "on" : "off"));

// --- Clicks -------------------------------------------------------------------------------------

// A menu closes when one goes elsewhere.
function closeMenus(except = null) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(except)) menu.open = false;
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
  if (target === shortcutsDialog) shortcutsDialog.close();
  if (target.closest("[data-shortcuts-help]")) shortcutsDialog.showModal();
  if (target.closest("[data-dismiss]")) {
    target.closest(".notice").remove();
    $("#main").focus({ preventScroll: true });
  }
  if (target.closest("[data-zone-choice]")) chooseZone(target.closest("[data-zone-choice]").dataset.zoneChoice);
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
let stepsScrollTop = 0; // where its list was put

function scrollToCurrentStep() {
  const step = $("[data-steps] [data-current]");
  const panel = step?.closest(".timeline");
  if (!panel || panel.scrollTop !== stepsScrollTop) return;
  const [{ top, bottom, height }, box] = [step.getBoundingClientRect(), panel.getBoundingClientRect()];
  // Of a panel that reaches below the window its upper part is what is seen.
  const end = box.top + height < innerHeight ? Math.min(box.bottom, innerHeight) : box.bottom;
  if (top < box.top || bottom > end) panel.scrollTop += top - box.top - Math.max(0, (end - box.top - height) / 2);
  stepsScrollTop = panel.scrollTop;
}

$("[data-theme-toggle]").hidden = false;
$("[data-shortcuts-help]").hidden = false;
applyZoneChoice();
scrollToCurrentStep();
expandLinks();
restoreSelection();
setInterval(tick, 1000);
tick();
// htmx has heard it before. Not in the same task, at whose end the page is laid out.
document.addEventListener("DOMContentLoaded", () =>
  setTimeout(() => {
    isHtmxStarted = true;
    ensureStream();
    refreshIfDue();
    detectBrowserZone();
    applyZoneChoice();
  }),
);
