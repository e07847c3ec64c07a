// What htmx does not do by itself: times that tick, the stream and its news, dialogs, keys, the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const root = document.documentElement;
const dialog = $("#dialog");
const notices = $("#notices");

// Preferences of this browser; kept for the page only if storage is blocked.
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

// --- The event stream: pushes changes while the tab is visible -----------------------------------

const stream = $("#stream");
let isHtmxStarted = false;
let connection = null; // htmx's, which reconnects by itself
let isConnected = false;
let lastMessageAt = Date.now(); // time of the stream's last message
let messageDueAt = Infinity; // without a message until then, the stream is dead
let reconnectAt = 0; // earliest time

const STREAM_TIMEOUT = 40_000; // milliseconds; the server sends a heartbeat every 15 s
const RECONNECT_GRACE = 5_000; // milliseconds without a stream before the page polls

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

// Polling starts RECONNECT_GRACE after this, however old the last message is.
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
  if (isSignedOut) event.preventDefault(); // the user has to sign in first
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
const heights = new Map(); // of the elements that a message replaces, in pixels
let isOutdated = false; // the page needs a refresh, e.g. a run moved to another section
let lastActivityAt = Date.now(); // time of the last user input; opening the page counts
let refreshNotBefore = 0; // earliest time; spread, so that many pages do not refresh at once after one change

function updateNewRunsButton() {
  if (!newRunsButton) return;
  const { textOne: one, textMany: many, textChanged: changed } = newRunsButton.dataset;
  const text = newRunIds.size > 1 ? many.replace("{n}", newRunIds.size) : newRunIds.size ? one : changed;
  if (text !== newRunsButton.textContent) {
    // Set by the first of several changes, so that a steady flow of changes does not postpone the refresh.
    if (newRunsButton.hidden) refreshNotBefore = Math.max(refreshNotBefore, Date.now() + 3_000 * Math.random());
    newRunsButton.textContent = text; // setting the same text would be announced again
  }
  newRunsButton.hidden = !newRunIds.size && !isOutdated;
}

stream?.addEventListener("htmx:sse:before:message", ({ detail: { message } }) => {
  lastMessageAt = Date.now();
  messageDueAt = lastMessageAt + STREAM_TIMEOUT;
  isConnected = true; // not before the first message
  showUnreachable(message.event === "away", message.data);
  if (message.event) return;
  const parts = document.createElement("template");
  parts.innerHTML = message.data;
  // Another structure: swapping single elements is not enough.
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
  // A replaced element keeps its height, so that the content below it does not move.
  for (const [id, height] of heights) document.getElementById(id)?.style.setProperty("--had", `${height}px`);
  heights.clear();
  afterSwap();
  updateNewRunsButton();
});

// No refresh during user input: it could move what the user is about to click.
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

// --- The refresh: polling without a stream; one at a time, with backoff after failures ------------

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
  // A pending stream request does not block the refresh.
  if (!isSignedOut && !document.hidden && !$(".htmx-request:not(#stream)")) htmx.trigger("#live", "refresh");
}

document.addEventListener("htmx:config:request", ({ target, detail: { ctx } }) => {
  if (target.id === "live") ctx.request.timeout = 10_000; // milliseconds; a refresh only reads the dashboard's database
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

// No text: there was no response.
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
  dialog.close(); // its form cannot be submitted, and it covers the sign-in link
  showNotice("signed-out", text);
}

// Signed in again, in another tab.
function clearSignedOut() {
  isSignedOut = false;
  $("[data-sign-in]", notices)?.closest(".notice").remove();
}

document.addEventListener("visibilitychange", tick);

// --- Notices ------------------------------------------------------------------------------------

// Without a text there was no response: show the template's text for that.
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
    signIn.hash = location.hash; // kept by browsers in redirects
  }
  notices.replaceChildren(notice);
}

// A notice above the page does not move the content: the page scrolls by its height. While the notices
// are out of sight, the browser's scroll anchoring does this.
let noticesHeight = notices.offsetHeight; // pixels

new ResizeObserver(() => {
  const delta = notices.offsetHeight - noticesHeight;
  noticesHeight += delta;
  if (delta > 0 && notices.getBoundingClientRect().top >= 0) scrollBy({ top: delta, behavior: "instant" });
}).observe(notices);

// Concluded notices are removed only while the user is idle, since that moves the content.
function removeConcludedNotices() {
  const notice = $(".concluded", notices);
  if (notice && isIdle()) notice.remove();
}

// The message of a response: plain text, or [data-reason] of an error page.
function responseMessage(ctx) {
  if (ctx.response?.raw.headers.get("content-type")?.startsWith("text/plain")) return ctx.text?.trim();
  const page = new DOMParser().parseFromString(ctx.text ?? "", "text/html");
  return $("[data-reason]", page)?.textContent.trim();
}

function handleFailure({ target, detail: { ctx } }) {
  if (!ctx) return;
  const status = ctx.response?.status;
  if (status === 401) return showSignedOut(responseMessage(ctx));
  if (target === stream) return; // the page polls meanwhile
  if (target.matches?.(".actions > [hx-trigger=load]")) {
    target.parentElement.remove(); // the next swap brings a new one, which requests the form again
    isOutdated = true;
    return updateNewRunsButton();
  }
  if (target.id === "live") {
    finishRefresh(false, status === 503 ? responseMessage(ctx) : "");
    if (status !== 404) return;
    showUnreachable(false);
    if (failures > 1) return; // shown already
  }
  const line = dialog.open && $("[data-error]", dialog);
  const text = responseMessage(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  if (line && dialog.contains(target)) {
    fillMessage(line, text);
    line.hidden = false;
    // The focused button was disabled during the request; the error is about these fields.
    $("input", line.closest("fieldset")).focus();
  } else {
    showNotice("failed", text);
  }
}

document.addEventListener("htmx:response:error", handleFailure);
document.addEventListener("htmx:error", handleFailure);

// --- Swaps: open and close the dialog, and restore focus ------------------------------------------

let focusRunId = null; // the run to focus when its focused button is removed
let isAcknowledging = false; // focus the button that replaces the pressed one; it may be loaded later

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
  // A refresh that was requested before the abort must not overwrite its result.
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

// Each status change is announced once, whether it came by stream or refresh.
let previousStatuses = new Map();
let upstreamError = readUpstreamError();

function readUpstreamError() {
  return $("[data-upstream-error] .upstream-text")?.textContent ?? "";
}

const collectStatuses = () =>
  new Map([...document.querySelectorAll("[data-status]")].map(({ id, dataset }) => [id, { ...dataset }]));

// Appended, since earlier lines may not have been read out yet.
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
      if ($("#live").dataset.page === "now") isOutdated = true; // sorted by severity there
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
  // Setting the same address would load it again.
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
  if (target === stream || ctx.response.status >= 400) return; // stream messages are handled above
  if (ctx.target === dialog) {
    rememberFocus(target);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target)) {
    dialog.close();
    refreshAt = Date.now() + 1000; // show the result soon
  }
  afterSwap();
});

dialog.addEventListener("close", () => {
  if (!$(".htmx-request", dialog)) dialog.replaceChildren();
  restoreFocus();
});

// --- Selected runs: kept here, since swaps replace the rows ---------------------------------------

const selected = new Set(); // values of their checkboxes
const RUN_CHECKBOX = "input[type=checkbox][name=run]";

// Runs without a checkbox (no longer abortable, or on another page) are deselected.
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
  for (const link of document.querySelectorAll("[data-absolute-url]")) link.textContent = link.href; // absolute, for pasting
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
    getSelection().selectAllChildren(text); // no clipboard access: the user copies the selected text
  };
  (navigator.clipboard?.writeText(text.textContent) ?? Promise.reject()).then(showCopied, selectText);
}

// --- Keyboard shortcuts: navigation only, none changes a run --------------------------------------

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
  // Checkboxes take no text.
  if (event.target.isContentEditable || event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
  if ($("dialog[open]")) return;
  event.preventDefault();
  action();
});

shortcutsToggle.checked = readPreference("keys") !== "off";
shortcutsToggle.addEventListener("change", () => storePreference("keys", shortcutsToggle.checked ? "on" : "off"));

// --- Clicks -------------------------------------------------------------------------------------

// Menus close on a click elsewhere and on Escape.
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
    // A cookie, so that the server renders the theme and nothing flashes.
    document.cookie = `theme=${next}; path=${$(".brand").pathname}; max-age=31536000; samesite=lax`;
  }
});

// A long list of steps is scrolled to the current step until the user scrolls it; the page itself does
// not scroll. The steps of a run that was not read before arrive after the page.
let stepsScrollTop = 0; // last position set here

function scrollToCurrentStep() {
  const step = $("[data-steps] [data-current]");
  const panel = step?.closest(".timeline");
  if (!panel || panel.scrollTop !== stepsScrollTop) return;
  const [{ top, bottom, height }, box] = [step.getBoundingClientRect(), panel.getBoundingClientRect()];
  // Only the upper part of a panel that extends below the window is visible.
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
