// Times: the server writes them in the deployment’s zone; here they are written in the chosen one and
// counted. The first of four scripts (times, dialog, keys, live) that share one scope; base.html loads
// them in this order, and the last starts them.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const root = document.documentElement;
const dialog = $("#dialog");
const notices = $("#notices");

// Preferences of this browser; where storage is blocked or full, a choice lasts as long as the page.
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

// --- The zone -----------------------------------------------------------------------------------

const deploymentZone = root.dataset.zone;
let zoneChoice = readPreference("zone"); // "utc" or "browser"; anything else: the deployment's zone
let browserZone = readPreference("browser-zone"); // as detected on an earlier page
let zone = deploymentZone;
let isHtmxStarted = false;

function detectBrowserZone() {
  browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  storePreference("browser-zone", browserZone);
}

function applyZoneChoice() {
  if (zoneChoice === "browser") detectBrowserZone(); // the user may have travelled
  const zones = { deployment: deploymentZone, utc: "UTC", browser: browserZone ?? deploymentZone };
  zone = zones[zoneChoice] ?? deploymentZone;
  root.toggleAttribute("data-other-zone", zone !== deploymentZone);
  $("[data-zone-name]").textContent = zone;
  const known = new Set([zone]); // each is offered once
  for (const button of $$("[data-zone-choice]")) {
    const offered = zones[button.dataset.zoneChoice];
    button.hidden = known.has(offered);
    known.add(offered);
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

// --- Texts --------------------------------------------------------------------------------------

const locale = "en-GB";
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

// Made when first needed: a new tab's first one takes a browser 10 ms.
function zonedFormat(options, language = locale) {
  let format, formatZone;
  return (at) => {
    if (formatZone !== zone) format = new Intl.DateTimeFormat(language, { timeZone: zone, ...options });
    formatZone = zone;
    return format.format(at);
  };
}

const formatIsoDate = zonedFormat({ dateStyle: "short" }, "sv");
const formatDay = zonedFormat({ day: "numeric", month: "short" });
const formatDate = zonedFormat({ day: "numeric", month: "short", year: "numeric" });
const formatClock = zonedFormat(CLOCK);
const formatClockAndZone = zonedFormat({ ...CLOCK, timeZoneName: "short" });
const formatFull = (at) => `${formatIsoDate(at)} ${formatClockAndZone(at)}`; // as the server's titles

let clockOffset = 0; // milliseconds by which the server's clock is ahead of this one
const serverNow = () => Date.now() + clockOffset;

function syncClock(headers) {
  const date = Date.parse(headers.get("date"));
  if (Math.abs(date - serverNow()) > 2000) clockOffset = date - Date.now();
  syncedLead = clockLead();
}

// Changes when this clock is set, but also when the computer sleeps, if performance.now() stands still meanwhile.
// Then the offset is still right. So it is not corrected by the change: the next response tells which it was.
const clockLead = () => Date.now() - performance.now();
let syncedLead; // when the clocks were last compared
const isClockDoubtful = () => Math.abs(clockLead() - syncedLead) > 2000;

const timeTexts = JSON.parse($("#time-texts").textContent); // templates/base.html
const timeText = (key, part) => timeTexts[key].replace(/%\(\w+\)s/, () => part);

// In at most two units, as texts/durations.py; `brief` omits a second unit that is zero.
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
function formatAge(seconds) {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["min", 60] : ["h", 3600];
  return timeText(unit, Math.floor(seconds / size));
}

const formatAgo = (seconds) => timeText("ago", formatAge(seconds));

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
  const now = serverNow();
  const current = `${zone} ${Math.floor(now / 900_000)}`;
  if (formattedIn !== current) formattedTimes.clear();
  formattedIn = current;
  if (!formattedTimes.has(at)) {
    const [date, today] = [formatIsoDate(at), formatIsoDate(now)];
    const formatOfDay = date.slice(0, 4) === today.slice(0, 4) ? formatDay : formatDate;
    formattedTimes.set(at, date === today ? formatClock(at) : `${formatOfDay(at)} ${formatClock(at)}`);
  }
  return formattedTimes.get(at);
}

// --- Elements -----------------------------------------------------------------------------------

// The text is before what only screen readers read.
function writeText(element, text) {
  if (!element.firstChild) element.append("");
  if (element.firstChild.data !== text) element.firstChild.data = text;
}

// Screen readers skip tooltips: after a relative time they read the full time.
function writeSpokenTime(time, text) {
  if (!text) return $("span", time)?.remove();
  if (!$("span", time)) time.append(Object.assign(document.createElement("span"), { className: "visually-hidden" }));
  if ($("span", time).textContent !== text) $("span", time).textContent = text;
}

function updateTime(time) {
  const at = Date.parse(time.dateTime);
  if (Number.isNaN(at)) return;
  const seconds = Math.max(0, Math.floor((serverNow() - at) / 1000));
  const { age, since, sentence, clock, until, ago, full } = time.dataset;
  // The full time: a title or, in an SVG title, the text. Swaps restore the server's, without data-zone.
  if ((time.dataset.zone ?? deploymentZone) !== zone || (!time.title && full === undefined)) {
    time.dataset.zone = zone;
    if (full === undefined) time.title = formatFull(at);
    else writeText(time, formatFull(at));
  }
  if (age !== undefined) updateAge(time, seconds);
  if (since !== undefined) writeText(time, sentence === undefined ? formatDuration(seconds) : formatElapsed(seconds));
  if (until !== undefined) writeText(time, formatCountdown(at));
  // Until htmx has started, the server's texts stay: the first format would delay the first paint.
  const mayFormat = isHtmxStarted || zone !== deploymentZone;
  // A text without a date is of today, but for one that was stored.
  if (clock !== undefined && (mayFormat || time.textContent.length > "00:00:00".length)) writeText(time, formatTime(at));
  if (ago === undefined) return;
  if (ago === "brief") {
    writeText(time, seconds < 86400 ? formatAge(seconds) : timeText("d", Math.floor(seconds / 86400)));
    return writeSpokenTime(time, `, ${time.title}`);
  }
  // Times more than a day ago are shown as date and clock time.
  const isBoth = time.closest("[data-times=both]");
  if (seconds < 86400) writeText(time, isBoth ? `${formatTime(at)}, ${formatAgo(seconds)}` : formatAgo(seconds));
  else if (mayFormat) writeText(time, formatTime(at));
  writeSpokenTime(time, seconds < 86400 && !isBoth && `, ${time.title}`);
}

// Green and “Live” only while the stream is open, of what was read within a minute.
function updateAge(time, seconds) {
  const chip = time.closest("[data-chip]");
  const isCurrent = seconds < 60 && chip.dataset.tone !== "warning" && !$("[data-database-outage]");
  const isLive = isCurrent && isConnected && !isUnreachable;
  writeText(time, isLive ? time.dataset.live : formatAge(seconds));
  if (chip.dataset.tone !== "warning") chip.dataset.tone = isLive ? "good" : "neutral";
}

const severityAt = (seconds, overdueAt, criticalAt) => (seconds > criticalAt ? 2 : seconds > overdueAt ? 1 : 0);

// The end of a bar is where its run becomes critical. The bar is empty until this first runs.
function growProgress(bar) {
  const { since, overdueAfter, criticalAfter } = bar.dataset;
  const seconds = Math.max(0, (serverNow() - Date.parse(since)) / 1000);
  $(".elapsed", bar).setAttribute("width", Math.min(100, (100 * seconds) / criticalAfter).toFixed(1));
  bar.dataset.severity = severityAt(seconds, overdueAfter, criticalAfter);
}

// Bars of steps are in seconds on the run's axis, which is extended once they reach its end.
function growSteps(list) {
  const seconds = (serverNow() - Date.parse(list.dataset.axisStart)) / 1000;
  for (const step of $$("[data-running]", list)) {
    const elapsed = $(".elapsed", step);
    elapsed?.setAttribute("width", Math.max(1, seconds - elapsed.getAttribute("x")).toFixed(1));
  }
  const bars = $$(".bar", list);
  // Smaller changes would be invisible, and there may be hundreds of bars.
  if (!bars.length || seconds < bars[0].viewBox.baseVal.width * 1.005) return;
  for (const bar of bars) bar.setAttribute("viewBox", `0 0 ${Math.ceil(seconds)} 4`);
  const end = $(".axis time:last-of-type", list.parentElement);
  end.dateTime = new Date(serverNow()).toISOString();
  end.title = "";
}

function updateTimes() {
  $$("[data-axis-start]").forEach(growSteps);
  $$(".progress").forEach(growProgress);
  $$("time[datetime]").forEach(updateTime);
  swapObserver.takeRecords(); // the changes made above
}

// Times in swapped content are rewritten before it is painted.
const swapObserver = new MutationObserver(updateTimes);
const observeSwaps = () => swapObserver.observe(document.body, { childList: true, characterData: true, subtree: true });
