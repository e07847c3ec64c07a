// Times: written by the server in the deployment’s zone, here in the chosen one, and counted.
// The first of four scripts (times, dialog, keys, live) that share one scope; base.html loads them in
// this order, and the last starts them.
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
let isHtmxStarted = false;

function detectBrowserZone() {
  browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  storePreference("browser-zone", browserZone);
}

const zoneOf = (choice) => ({ utc: "UTC", browser: browserZone })[choice] ?? deploymentZone;

function applyZoneChoice() {
  if (zoneChoice === "browser") detectBrowserZone(); // the user may have travelled
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

function chooseZone(button) {
  zoneChoice = button.dataset.zoneChoice;
  storePreference("zone", zoneChoice);
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

// In at most two units; `brief` omits a second unit that is zero.
function formatDuration(seconds, brief = false) {
  const pad = (n) => String(n).padStart(2, "0");
  const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  const [first, second] = d ? [["d", d], ["h", h]] : h ? [["h", h], ["min", pad(m)]] : m ? [["min", m], ["s", pad(s)]] : [["s", s]];
  const units = second && !(brief && !Number(second[1])) ? [first, second] : [first];
  return units.map(([unit, n]) => timeText(unit, n)).join(" ");
}

// In a sentence, seconds are omitted once there are minutes.
const formatElapsed = (seconds) => timeText("for", formatDuration(seconds < 60 ? seconds : seconds - (seconds % 60), true));

// In one unit: a past time needs no more precision.
function formatAgo(seconds) {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["min", 60] : ["h", 3600];
  return timeText("ago", timeText(unit, Math.floor(seconds / size)));
}

// After the due time the text is “due now”, not a time in the past.
function formatCountdown(at) {
  const seconds = Math.ceil((at - serverNow()) / 1000);
  return seconds > 0 ? timeText("in", formatDuration(seconds)) : timeTexts.due;
}

// Formatting takes 20 µs, and a page has hundreds of times: each is formatted once per quarter of an
// hour, since no day begins within one, in any zone.
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

// Times more than a day ago are shown as date and clock time.
const isRelative = (time, seconds) => seconds < 86400 && !time.closest("[data-times=both]");

function formatTimeAgo(time, at, seconds) {
  if (isRelative(time, seconds)) return formatAgo(seconds);
  if (seconds < 86400) return `${formatTime(at)}, ${formatAgo(seconds)}`;
  return rewrittenTimes.has(time) || zone !== deploymentZone ? formatTime(at) : time.textContent;
}

// Whether the text has no date, as in the server's text of a time today.
const hasNoDate = (time) => time.textContent.length === "00:00:00".length;

const rewrittenTimes = new WeakSet(); // times whose text is no longer the server's

function writeTime(time, text) {
  if (!time.firstChild) time.append("");
  if (time.firstChild.data === text) return;
  time.firstChild.data = text;
  rewrittenTimes.add(time);
}

// Screen readers skip tooltips: a relative time is followed by the full time as hidden text.
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

// The full time, as title or, in an SVG title, as text. Swaps restore the server's, without data-zone.
function writeFullTime(time, at) {
  const isFullText = "full" in time.dataset;
  if ((time.dataset.zone ?? deploymentZone) === zone && (isFullText || time.title)) return;
  time.dataset.zone = zone;
  if (isFullText) writeTime(time, formatFull(at));
  else time.title = formatFull(at);
}

// The end of a bar is where its run becomes critical. The bar is empty until this first runs.
function growProgress(bar) {
  const { since, overdueAfter, criticalAfter } = bar.dataset;
  const seconds = Math.max(0, (serverNow() - Date.parse(since)) / 1000);
  $(".elapsed", bar).setAttribute("width", Math.min(100, (100 * seconds) / criticalAfter).toFixed(1));
  bar.dataset.severity = seconds > criticalAfter ? 2 : seconds > overdueAfter ? 1 : 0;
}

// Bars of steps are in seconds on the run's axis, which is extended once they reach its end.
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
  // Smaller changes would be invisible, and there may be hundreds of bars.
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
  swapObserver.takeRecords(); // the changes made above
}

// Times in swapped content are rewritten before it is painted.
const swapObserver = new MutationObserver(updateTimes);
const observeSwaps = () => swapObserver.observe(document.body, { childList: true, characterData: true, subtree: true });
