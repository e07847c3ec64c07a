// Keep a page current: by the event stream or, without it, by refreshes. What a swap must not disturb
// is kept around it. Changes are announced.
"use strict";

// --- The event stream: htmx opens it, reconnects, and pauses it while the tab is in the background --

const STREAM_TIMEOUT = 40_000; // milliseconds; the server sends a heartbeat every 15 s
const RECONNECT_GRACE = 5_000; // milliseconds without a stream before the page polls

const stream = $("#stream");
// In the background a page stands still, unless it is to tell of the end of its run.
const isPaused = () => document.hidden && !isTelling();

// htmx's listener ends the stream in the background.
function keepStream() {
  const { visibilityHandler } = connection ?? {};
  if (visibilityHandler) document[isTelling() ? "removeEventListener" : "addEventListener"]("visibilitychange", visibilityHandler);
}

let connection = null; // htmx's
let connectedAt = 0;
let lastMessageAt = 0; // time of the last message; without one for STREAM_TIMEOUT, the stream is dead
let isConnected = false; // a message has come, and the stream has not ended since
let wasShort = false; // the last stream ended at once
let pollFrom = Date.now() + RECONNECT_GRACE; // while there is no stream

function markDisconnected() {
  if (!isConnected) return;
  isConnected = false;
  // Some proxies answer each stream and end it at once: the page polls nevertheless.
  const isShort = Date.now() - connectedAt < RECONNECT_GRACE;
  if (!isShort || !wasShort) pollFrom = Date.now() + RECONNECT_GRACE;
  wasShort = isShort;
}

const STREAM_LISTENERS = {
  "htmx:before:request": (event) => {
    if (isSignedOut || isPaused()) event.preventDefault();
    event.detail.ctx.fetch = async (...args) => {
      const response = await fetch(...args);
      if (response.redirected) showSignedOut();
      syncClock(response.headers);
      return response;
    };
  },
  "htmx:sse:before:connection": (event) => {
    markDisconnected();
    if (isSignedOut) event.preventDefault();
  },
  "htmx:sse:after:connection": ({ detail }) => {
    connection = detail.connection;
    connectedAt = lastMessageAt = Date.now();
    keepStream();
  },
  "htmx:sse:before:message": ({ detail: { message } }) => {
    lastMessageAt = Date.now();
    isConnected = true;
    showUnreachable(message.event === "outage", message.data);
    if (message.event === "stale") {
      isOutdated = true;
      missedAt = performance.now();
    }
    if (!message.event) hasChangedSinceRequest = true;
    updateNewRunsButton();
  },
  "htmx:sse:error": ({ detail }) => {
    markDisconnected();
    if (detail.status === 401) showSignedOut();
  },
  "htmx:sse:close": markDisconnected,
};
for (const [name, listener] of Object.entries(STREAM_LISTENERS)) stream?.addEventListener(name, listener);

// A row of a section that the page has already comes as a placeholder. A message that the answer to an abort has
// overtaken shows an older run, and so does an answer that messages have overtaken. (In a refresh an older one is right:
// the database was restored.)
const isOlder = (run, shown) => Number(run.dataset?.version) < Number(shown.dataset?.version);
htmx.registerExtension("unchanged-rows", {
  htmx_before_morph_node: (row, { newNode }) => {
    if (newNode.hasAttribute?.("data-unchanged")) return false;
    if (!isOlder(newNode, row)) return true;
    // Unless a message has overtaken the answer to the refresh: then another refresh puts the row right.
    if (isRefresh && hasChangedSinceRequest) missedAt = performance.now();
    return isRefresh;
  },
});

// --- New runs: counted on a button, and shown at once while nobody uses the page -------------------

const newRunsButton = $("#new-runs");
const newRunIds = new Set(); // runs that the page does not show
let isOutdated = false; // the page needs a refresh, e.g. its structure has changed
let missedAt = 0; // since when it lacks changes to what it shows, in milliseconds of performance.now()
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

newRunsButton?.addEventListener("click", () => {
  $("#main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
  refresh();
});

for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) {
  document.addEventListener(kind, () => {
    noteReturn();
    lastActivityAt = Date.now();
  }, { passive: true });
}

// No refresh during user input: it could move what the user is about to click. A touch screen leaves the hover where
// it was touched last.
const isHovered = () => matchMedia("(hover: hover)").matches && $("#live:hover");
const isIdle = () => Math.abs(Date.now() - lastActivityAt) > 5_000 && !$("dialog[open]") && !isHovered();
const isSafeToRefresh = () => isIdle() && !$("#live").contains(document.activeElement) && getSelection().isCollapsed && !selectedRuns().length;

// --- Who comes back to an open page is told what happened meanwhile ---------------------------------

const MIN_ABSENCE = 360_000; // milliseconds; longer than that of web/pages/away.py, whatever the clocks
const away = $("#away");
let wasHereAt = Date.now(); // time of the last user input, or of the page's coming into sight

function noteReturn() {
  if (document.hidden) return;
  if (away && Date.now() - wasHereAt > MIN_ABSENCE) {
    // What is shown has not been seen yet: then still since that time.
    if (!$(".away")) away.setAttribute("hx-vals", JSON.stringify({ since: Math.round(wasHereAt + clockOffset) }));
    htmx.trigger(away, "return");
  }
  wasHereAt = Date.now();
}

// --- Around a swap --------------------------------------------------------------------------------

let selectedBefore, rowsBefore, isRefresh;

document.addEventListener("htmx:before:swap", ({ target, detail: { tasks } }) => {
  if (target.matches?.(".away form")) $("#main").focus({ preventScroll: true }); // its button goes
  rememberFocus(document.activeElement);
  selectedBefore = selectedRuns();
  holdPlace(target !== away);
  isRefresh = target.id === "live";
  if (isRefresh && returnsFormerRow(tasks)) missedAt = performance.now(); // it leaves again soon
  if (target !== stream) return;
  rowsBefore = $$("[data-section] > .runs tbody > tr").map((row) => ({ row, body: row.parentElement, section: row.closest("section") }));
  for (const { target: element, fragment: { firstElementChild: part }, swapSpec } of tasks) {
    if (!element && swapSpec.new) newRunIds.add(part.id);
    if (element && swapSpec.unlisted) isOutdated = true;
    // The last state of a run may come after its section.
    for (const row of $$("[data-former-run]")) if (row.dataset.formerRun === part?.id && !isOlder(part, { dataset: lastStates.get(row) })) setLastState(row, part);
    // Another structure: swapping single elements is not enough.
    if (element?.id === "data-age" && part.dataset.structure !== element.dataset.structure) isOutdated = true;
    // An element keeps its height until the next refresh, so that the content below it does not move.
    if (element?.matches("tr, #data-age, #policy-notes, #stage-error")) element.style.setProperty("--had", `${element.getBoundingClientRect().height}px`);
  }
});

// A kept height is that of a layout, which the width decides. (The address bar of a phone changes the height only.)
let layoutWidth = innerWidth;

addEventListener("resize", () => {
  if (innerWidth === layoutWidth) return;
  layoutWidth = innerWidth;
  for (const element of $$("#live [style]")) element.style.removeProperty("--had");
});

document.addEventListener("htmx:after:swap", ({ target, detail: { ctx } }) => {
  if (ctx.response.status >= 400) return;
  if (ctx.sourceElement?.matches("[data-sets-address]")) {
    // That of the results, which a reload and Back show again.
    history.replaceState(null, "", $("#live").getAttribute("hx-get"));
    announce($("#count")?.textContent ?? "");
  }
  if (target === away && $(".away")) announce($(".away summary").textContent.trim());
  if (target === stream) {
    keepFormerRows();
    if ($("[data-unchanged]")) { // the page lacks a row that the server takes it to have
      isOutdated = true;
      refresh();
    }
  } else if (ctx.target === dialog) {
    rememberFocus(ctx.sourceElement);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target) && target.id !== "abort-facts") {
    dialog.close();
    refreshedAt = 0; // show the result soon
  }
  // A filter that applies when changed: the address is the filter.
  if (target.matches?.(".filters")) history.replaceState(null, "", ctx.response.raw.url);
  for (const box of $$(RUN_CHECKBOX)) box.checked = selectedBefore.includes(box.value);
  restorePlace();
  finishSwap();
});

function finishSwap() {
  const { title, icon } = $("[data-title]")?.dataset ?? {};
  if (title) document.title = title;
  // Setting the same address would load it again.
  if (icon && icon !== $("link[rel=icon]").getAttribute("href")) $("link[rel=icon]").href = icon;
  announceChanges();
  tellIfEnded();
  updateNewRunsButton();
  updateSelection();
  scrollToCurrentStep();
  findInLog();
  for (const link of $$("[data-absolute-url]")) link.textContent = link.href; // absolute, for pasting
  if (!dialog.open) restoreFocus();
}

// --- Rows that leave a section stay for a moment, with their last state and without controls -------

const FORMER_ROW_TIME = 6_000; // milliseconds
let formerRowCount = 0;

// A row that a swap has removed is put back behind the row that it followed.
function keepFormerRows() {
  const left = new Set(rowsBefore.map(({ row }) => row).filter((row) => !row.isConnected && !row.matches(".waiting")));
  let previous = null;
  for (const { row, body, section } of rowsBefore) {
    if (left.has(row)) {
      if (!$("tbody", section)) { // it has become empty
        body.replaceChildren();
        $("h2", section).after(body.closest(".runs"));
      }
      const place = $("tbody", section);
      if (previous?.parentElement === place) previous.after(row);
      else place.prepend(row);
      if (!row.dataset.formerRun) markFormer(row);
    }
    if (row.isConnected) previous = row;
  }
}

function copyWithoutControls(row) {
  const copy = row.cloneNode(true);
  for (const element of $$("[id]", copy)) element.removeAttribute("id");
  for (const cell of $$(".select, .abort-control", copy)) cell.replaceChildren();
  return copy;
}

const lastStates = new WeakMap(); // data attributes of the runs of former rows

function setLastState(row, run) {
  lastStates.set(row, { ...run.dataset });
  row.replaceChildren(...copyWithoutControls(run).children);
}

// Of rows that messages have removed since the refresh was requested: versions of their runs by id.
const formerVersions = new Map();

// Whether an answer that messages have overtaken has such a row. One that comes back has a newer version.
function returnsFormerRow(tasks) {
  const isFormer = (row, version) => Number(row?.dataset.version) <= version;
  return tasks.some(({ fragment }) =>
    [...formerVersions].some(([id, version]) => isFormer($(`#${CSS.escape(id)}`, fragment), version)),
  );
}

function markFormer(row) {
  const { id } = row;
  if ($("#live.htmx-request")) formerVersions.set(id, Number(row.dataset.version));
  setLastState(row, row);
  for (const name of row.getAttributeNames()) row.removeAttribute(name);
  row.id = `former-${++formerRowCount}`; // a run may leave one section soon after another
  row.dataset.formerRun = id;
  row.inert = true;
  setTimeout(removeFormerRow, FORMER_ROW_TIME, row);
}

function removeFormerRow(row) {
  const runs = row.closest(".runs");
  holdPlace();
  row.remove();
  if (runs && !$("tbody > tr", runs)) runs.remove();
  restorePlace();
}

// --- Content under the mouse or with the focus stays in its place while rows come and go above it ----

let heldElement = null;
let heldTop = 0; // its distance from the window's top

function holdPlace(isWhole = true) {
  const parts = "#live :is(tr, li, td, h2)[id]";
  const candidates = [$$(`${parts}:hover`).at(-1), document.activeElement.closest(parts)];
  // Without mouse or focus on it, the page stays where it was scrolled to; at its top, new rows are to be seen, and on a
  // run's page what became of one's press.
  if (isWhole && (scrollY > 0 || !(isIdle() || $("#live > .run")))) candidates.push(...$$(parts));
  const isVisible = ({ top, bottom }) => bottom > 0 && top < innerHeight;
  heldElement = candidates.find((element) => element && isVisible(element.getBoundingClientRect()));
  if (!heldElement) return;
  heldTop = heldElement.getBoundingClientRect().top;
  $("#live").style.overflowAnchor = "none"; // the browser would scroll as well
}

function restorePlace() {
  const element = heldElement?.isConnected ? heldElement : document.getElementById(heldElement?.id);
  if (!element) return;
  const delta = element.getBoundingClientRect().top - heldTop;
  const missing = delta - (root.scrollHeight - innerHeight - scrollY);
  const main = $("#main");
  // Room to scroll by `delta`.
  if (missing > 0) main.style.paddingBlockEnd = `${parseFloat(getComputedStyle(main).paddingBlockEnd) + missing}px`;
  if (delta) scrollBy({ top: delta, behavior: "instant" });
  noticesHeight = notices.offsetHeight; // a notice that came with the change is compensated, too
  requestAnimationFrame(() => $("#live").style.removeProperty("overflow-anchor"));
}

// --- The refresh: polling without a stream; one at a time, with backoff after failures ------------
// Also with one while this clock is in doubt, since only a response has the server’s time, and not a message.

let isSignedOut = false;
let failures = 0;
let isGone = false; // what the page is about was deleted, as a notice says
let isUnreachable = false; // the dashboard or its database, as the page says
let hasChangedSinceRequest = false; // a stream message came while a refresh was under way
let refreshedAt = Date.now(); // time of the last refresh, or of the page's load
let requestedAt = 0; // of the refresh, in milliseconds of performance.now()

function isRefreshDue() {
  if (!isClockDoubtful() && (isConnected || Date.now() < pollFrom)) {
    if (Date.now() <= refreshNotBefore) return false;
    // Older rows beside the current data age mislead: these do not wait until nobody uses the page.
    return missedAt || ((newRunIds.size || isOutdated) && isSafeToRefresh());
  }
  const seconds = Number($("#live")?.dataset.refresh);
  const pause = Math.max(seconds, Math.min(60, seconds * 2 ** failures));
  return seconds && Math.abs(Date.now() - refreshedAt) >= 1000 * pause - 500; // the clock may have been set back
}

function refresh() {
  // A pending stream request does not block the refresh.
  if (isSignedOut || isPaused() || $(".htmx-request:not(#stream)")) return;
  hasChangedSinceRequest = false;
  formerVersions.clear();
  requestedAt = performance.now();
  htmx.trigger("#live", "refresh");
}

function finishRefresh(isSuccess, text, isReachable = isSuccess) {
  failures = isSuccess ? 0 : failures + 1;
  refreshedAt = Date.now();
  refreshNotBefore = refreshedAt + Math.min(60_000, 5_000 * 2 ** failures);
  if (isReachable && !isSuccess) hideUnreachable();
  else showUnreachable(!isReachable, text);
  if (!isSuccess) return;
  isGone = false;
  for (const element of $$("#live [style]")) element.removeAttribute("style");
  newRunIds.clear();
  if (missedAt < requestedAt) missedAt = 0;
  isOutdated = missedAt > 0 || hasChangedSinceRequest; // the response may be older than what the stream has swapped
  updateNewRunsButton();
}

// Without an announcement that the page is updated again, since it is not: what it is about was deleted.
function hideUnreachable() {
  $("[data-unreachable]").hidden = true;
  isUnreachable = false;
}

// No text: there was no response.
function showUnreachable(isVisible, text) {
  const line = $("[data-unreachable]");
  if (!line) return;
  line.hidden = !isVisible;
  line.dataset.plain ??= line.textContent;
  line.textContent = text || line.dataset.plain;
  if (isVisible !== isUnreachable) announce(isVisible ? line.textContent : line.dataset.restoredText);
  isUnreachable = isVisible;
}

function showSignedOut(text) {
  isSignedOut = true;
  connection?.reader?.cancel();
  dialog.close(); // its form cannot be submitted, and it covers the sign-in link
  showNotice("signed-out", text);
}

// The dashboard redirects none of htmx's requests: it is the sign-in page of a proxy before it, and nothing was done.
document.addEventListener("htmx:before:response", (event) => {
  if (!event.detail.ctx.response.raw.redirected) return;
  event.preventDefault();
  showSignedOut();
});

document.addEventListener("htmx:after:request", ({ target, detail: { ctx } }) => {
  syncClock(ctx.response.headers);
  if (ctx.response.status >= 400) return;
  if (isSignedOut) $("[data-sign-in]", notices)?.closest(".notice").remove(); // signed in again, in another tab
  isSignedOut = false;
  if (target.id === "live") finishRefresh(true);
});

// --- The log of what a run waits for: looked at again when its panel says so -----------------------

function lookAtLog() {
  const panel = $("[data-look-at]");
  if (!panel || isSignedOut || serverNow() < Date.parse(panel.dataset.lookAt)) return;
  if (!getSelection().isCollapsed && panel.contains(getSelection().anchorNode)) return; // somebody is about to copy
  panel.dataset.lookAt = new Date(serverNow() + 10_000).toISOString(); // should this one fail
  htmx.trigger(panel, "look");
}

// --- Announcements: each change once, whether it came by stream or refresh -------------------------

const readUpstreamError = () => $("[data-upstream-error] .upstream-text")?.textContent ?? "";

// Also of runs that have just left the page: their end is announced too.
function readRuns() {
  const left = $$("[data-former-run]").map((row) => [row.dataset.formerRun, { ...lastStates.get(row), element: row }]);
  const shown = $$("[data-status]").map((run) => [run.id, { ...run.dataset, element: run, section: run.closest("[data-announced]")?.dataset.announced }]);
  return new Map([...left, ...shown]); // a run that is shown has a newer state
}

let announcedRuns = readRuns(); // by id
let announcedError = readUpstreamError();

// Appended, since earlier lines may not have been read out yet.
function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("#announcements")?.append(line);
  setTimeout(() => line.remove(), 5_000);
}

function describeChanges(before, { element, section, overdue, acknowledged, status }) {
  const name = element.dataset.name ?? $("h1, a.title", element)?.textContent;
  const [badge, severity] = [$("[data-badge], .latest .label", element), $(".overdue", element)];
  // Once a run has succeeded, its cell on the board only says what is released.
  const state = badge?.textContent ?? $(".released .title", element)?.title;
  // A run that joins a section that is marked as announced.
  if (section && section !== before?.section) return [`${section}: ${name}: ${(severity ?? badge).textContent}`];
  if (!before) return [];
  return [
    overdue !== before.overdue && severity && `${name}: ${severity.textContent}`,
    acknowledged && acknowledged !== before.acknowledged && $(".acknowledged-by", element).innerText,
    status !== before.status && state && `${name}: ${state}`,
  ].filter(Boolean);
}

// A row that has changed is seen to.
function tint(element) {
  if (!element.matches("tr") || !matchMedia("(prefers-reduced-motion: no-preference)").matches) return;
  element.animate({ backgroundColor: ["color-mix(in oklab, var(--accent) 20%, var(--surface))", "transparent"] }, 1_000);
}

function announceChanges() {
  const [runs, error] = [readRuns(), readUpstreamError()];
  const texts = [];
  for (const [id, run] of runs) {
    const before = announcedRuns.get(id);
    if (before && before.version !== run.version) tint(run.element);
    texts.push(...describeChanges(before, run));
    if (run.concluded === "true") $(`[data-run-dom-id="${id}"]`, notices)?.classList.add("concluded");
  }
  if (texts.length) announce(texts.join(". "));
  if (error !== announcedError) announce(error || $("#announcements")?.dataset.restoredText);
  [announcedRuns, announcedError] = [runs, error];
}

// --- Start ---------------------------------------------------------------------------------------

function tick() {
  if (isPaused()) return;
  updateTimes();
  if (Math.abs(Date.now() - lastMessageAt) > STREAM_TIMEOUT) connection?.reader?.cancel();
  if (isRefreshDue()) refresh();
  lookAtLog();
  // Removed only while the user is idle, since that moves the content.
  if (isIdle()) $(".concluded", notices)?.remove();
}

document.addEventListener("visibilitychange", tick);
document.addEventListener("visibilitychange", noteReturn);
applyZoneChoice();
observeSwaps();
finishSwap();
setInterval(tick, 1000);
tick();
// After htmx’s own start, and not in the same task, at whose end the page is laid out.
document.addEventListener("DOMContentLoaded", () =>
  setTimeout(() => {
    isHtmxStarted = true;
    detectBrowserZone();
    applyZoneChoice();
  }),
);
