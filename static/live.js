// Keep a page current: by the event stream or, without it, by refreshes; announce changes.
"use strict";

// --- The event stream: htmx opens it, reconnects, and pauses it while the tab is in the background --

const stream = $("#stream");
let connection = null; // htmx's
let isConnected = false;
let pollFrom = Date.now() + 5_000; // while there is no stream
let connectedAt = 0;
let wasShort = false; // the last stream ended at once
let messageDueAt = Infinity; // without a message until then, the stream is dead

const STREAM_TIMEOUT = 40_000; // milliseconds; the server sends a heartbeat every 15 s
const RECONNECT_GRACE = 5_000; // milliseconds without a stream before the page polls

const closeStream = () => connection?.reader?.cancel();

// Polling starts RECONNECT_GRACE after this, however old the last message is.
function markDisconnected() {
  if (!isConnected) return;
  isConnected = false;
  // Some proxies answer each stream and end it at once: the page polls nevertheless.
  const isShort = Date.now() - connectedAt < RECONNECT_GRACE;
  if (!isShort || !wasShort) pollFrom = Date.now() + RECONNECT_GRACE;
  wasShort = isShort;
}

stream?.addEventListener("htmx:before:request", (event) => {
  if (isSignedOut || document.hidden) event.preventDefault();
  event.detail.ctx.fetch = async (...args) => {
    const response = await fetch(...args);
    syncClock(response.headers);
    return response;
  };
});

stream?.addEventListener("htmx:sse:before:connection", (event) => {
  markDisconnected();
  if (isSignedOut) event.preventDefault();
});

stream?.addEventListener("htmx:sse:after:connection", ({ detail }) => {
  connection = detail.connection;
  connectedAt = Date.now();
  messageDueAt = Date.now() + STREAM_TIMEOUT;
});

stream?.addEventListener("htmx:sse:error", ({ detail }) => {
  markDisconnected();
  if (detail.status === 401) showSignedOut();
});

stream?.addEventListener("htmx:sse:close", markDisconnected);

// --- Changes: swapped where the page has the element; new runs of a list are counted on a button ---

const newRunsButton = $("#new-runs");
const newRunIds = new Set(); // runs that the page does not show
let isOutdated = false; // the page needs a refresh, e.g. its structure has changed
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
  messageDueAt = Date.now() + STREAM_TIMEOUT;
  isConnected = true; // not before the first message
  showUnreachable(message.event === "outage", message.data);
  if (message.event) return;
  hasChangedSinceRequest = true;
  const parts = document.createElement("template");
  parts.innerHTML = message.data;
  // Another structure: swapping single elements is not enough.
  const structure = $("#data-age", parts.content)?.dataset.structure;
  if (structure !== undefined && structure !== $("#data-age").dataset.structure) isOutdated = true;
  for (const part of parts.content.querySelectorAll("hx-partial")) {
    const id = part.getAttribute("hx-target").slice(1);
    if ("new" in part.dataset && !document.getElementById(id)) newRunIds.add(id);
  }
});

stream?.addEventListener("htmx:sse:after:message", ({ detail: { message } }) => {
  if (message.event === "stale") isOutdated = true;
  if (message.event) return updateNewRunsButton();
  restorePlace();
  afterSwap();
  updateNewRunsButton();
  // The page lacks a row that the server takes it to have.
  const missing = document.querySelectorAll("[data-unchanged]");
  for (const row of missing) row.remove();
  if (missing.length) {
    isOutdated = true;
    refresh();
  }
});

// A row of a section that the page has already comes as a placeholder.
htmx.registerExtension("placeholders", {
  htmx_before_morph_node: (_row, { newNode }) => !newNode.hasAttribute?.("data-unchanged"),
});

// --- Rows that leave a section stay for a moment, with their last state and without controls -------

const FORMER_ROW_SECONDS = 6;
let formerRowCount = 0;

document.addEventListener("htmx:before:swap", ({ target, detail: { tasks } }) => {
  if (target !== stream) return;
  // An element keeps its height until the next refresh, so that the content below it does not move.
  for (const { target: element } of tasks) {
    if (element?.matches("tr, #data-age")) element.style.setProperty("--had", `${element.getBoundingClientRect().height}px`);
  }
  const incoming = new Map(tasks.map(({ fragment: { firstElementChild: element } }) => [element?.id, element]));
  for (const row of document.querySelectorAll("[data-former-since]")) {
    const changed = incoming.get(row.dataset.formerRun);
    if (changed) row.replaceWith(buildFormerRow(row, changed));
  }
  for (const { target: section, fragment } of tasks) {
    if (!section?.matches("[data-section]")) continue;
    const next = fragment.firstElementChild;
    let previous = null; // the incoming row behind which a row that leaves belongs
    for (const row of section.querySelectorAll("tbody > tr[data-run], tbody > tr[data-former-since]")) {
      let kept = next.querySelector(`#${CSS.escape(row.id)}`);
      if (!kept) {
        kept = buildFormerRow(row, incoming.get(row.id));
        if (previous) (previous.nextElementSibling?.matches(".waiting") ? previous.nextElementSibling : previous).after(kept);
        else formerRowsBody(section, next).prepend(kept);
      }
      previous = kept;
    }
  }
});

// The body of the incoming section's table; without one, that of an emptied copy of the present table.
function formerRowsBody(section, next) {
  const body = $("tbody", next);
  if (body) return body;
  const table = $(".runs", section).cloneNode(true);
  $("tbody", table).replaceChildren();
  $("h2", next).after(table);
  return $("tbody", table);
}

function buildFormerRow(row, changed) {
  const former = (changed ?? row).cloneNode(true);
  if ("formerSince" in former.dataset) return former;
  for (const name of former.getAttributeNames()) former.removeAttribute(name);
  for (const element of former.querySelectorAll("[id]")) element.removeAttribute("id");
  for (const cell of former.querySelectorAll(".select, .abort-control")) cell.replaceChildren();
  former.id = `former-${++formerRowCount}`; // a run may leave one section soon after another
  former.dataset.formerRun = (changed ?? row).id;
  former.dataset.formerSince = Date.now();
  former.inert = true;
  return former;
}

function removeFormerRows() {
  const due = [...document.querySelectorAll("[data-former-since]")].filter(({ dataset }) => Date.now() - dataset.formerSince > 1000 * FORMER_ROW_SECONDS);
  if (!due.length) return;
  holdPlace();
  for (const row of due) {
    const body = row.parentElement;
    row.remove();
    if (!body.children.length) body.closest(".runs").remove();
  }
  restorePlace();
}

// --- Content under the mouse or with the focus stays in its place while rows come and go above it ----

let pointer = null; // last position of the mouse in the window
let heldPlace = null; // { id, top }: the element to keep and its distance from the window's top

document.addEventListener("pointermove", ({ pointerType, clientX: x, clientY: y }) => { pointer = pointerType === "mouse" ? { x, y } : null; });
root.addEventListener("pointerleave", () => { pointer = null; });

function holdPlace() {
  const parts = "tr[id], li[id], td[id], h2[id]";
  const isVisible = (element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  const pointed = pointer && document.elementFromPoint(pointer.x, pointer.y);
  const candidates = [pointed, document.activeElement].map((element) => element?.closest("#live")?.contains(element) && element.closest(parts));
  // Without mouse or focus on it, the page stays where it was scrolled to; at its top, new rows are to be seen.
  if (scrollY > 0 || !isIdle()) candidates.push(...$("#live").querySelectorAll(parts));
  const element = candidates.find((candidate) => candidate && isVisible(candidate));
  heldPlace = element ? { id: element.id, top: element.getBoundingClientRect().top } : null;
  if (heldPlace) $("#live").style.overflowAnchor = "none"; // the browser would scroll as well
}

function restorePlace() {
  const former = heldPlace && [...document.querySelectorAll(`[data-former-run="${heldPlace.id}"]`)].at(-1);
  const element = former ?? (heldPlace && document.getElementById(heldPlace.id));
  if (!element) return;
  const delta = element.getBoundingClientRect().top - heldPlace.top;
  const missing = delta - (root.scrollHeight - innerHeight - scrollY);
  const main = $("#main");
  // Room to scroll by `delta`.
  if (missing > 0) main.style.paddingBlockEnd = `${parseFloat(getComputedStyle(main).paddingBlockEnd) + missing}px`;
  if (delta) scrollBy({ top: delta, behavior: "instant" });
  noticesHeight = notices.offsetHeight; // a notice that came with the change is compensated, too
  requestAnimationFrame(() => $("#live").style.removeProperty("overflow-anchor"));
}

// No refresh during user input: it could move what the user is about to click.
const isIdle = () => Date.now() - lastActivityAt > 5_000 && !$("dialog[open]") && !$("#live:hover");
const isSafeToRefresh = () => isIdle() && !$("#live").contains(document.activeElement) && getSelection().isCollapsed;

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
let hasChangedSinceRequest = false; // a stream message came while a refresh was under way
let refreshedAt = Date.now(); // time of the last refresh, or of the page's load

function isRefreshDue() {
  if (isConnected || Date.now() < pollFrom) {
    return (newRunIds.size || isOutdated) && Date.now() > refreshNotBefore && isSafeToRefresh();
  }
  const seconds = Number($("#live")?.dataset.refresh);
  const pause = Math.max(seconds, Math.min(60, seconds * 2 ** failures));
  return seconds && Date.now() >= refreshedAt + 1000 * pause - 500;
}

function refresh() {
  // A pending stream request does not block the refresh.
  if (isSignedOut || document.hidden || $(".htmx-request:not(#stream)")) return;
  hasChangedSinceRequest = false;
  htmx.trigger("#live", "refresh");
}

function finishRefresh(isSuccess, text) {
  failures = isSuccess ? 0 : failures + 1;
  refreshedAt = Date.now();
  refreshNotBefore = refreshedAt + Math.min(60_000, 5_000 * 2 ** failures);
  showUnreachable(!isSuccess, text);
  if (isSuccess) {
    for (const element of document.querySelectorAll("#live [style]")) element.removeAttribute("style");
    newRunIds.clear();
    isOutdated = hasChangedSinceRequest; // the response may be older than what the stream has swapped
    updateNewRunsButton();
  }
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

document.addEventListener("htmx:after:request", ({ target, detail: { ctx } }) => {
  syncClock(ctx.response.headers);
  if (ctx.response.status >= 400) return;
  if (isSignedOut) clearSignedOut();
  if (target.id === "live") finishRefresh(true);
});

// --- Announcements -------------------------------------------------------------------------------

// Each status change is announced once, whether it came by stream or refresh, and so is a run that
// joins a section that is marked as announced.
let previousStatuses = collectStatuses();
let upstreamError = readUpstreamError();

function readUpstreamError() {
  return $("[data-upstream-error] .upstream-text")?.textContent ?? "";
}

function announcedSection(run) {
  return run.closest("[data-announced]")?.dataset.announced;
}

function collectStatuses() {
  return new Map([...document.querySelectorAll("[data-status]")].map((run) => [run.id, { ...run.dataset, section: announcedSection(run) }]));
}

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
    const badge = $(".overdue", run);
    const section = announcedSection(run);
    if (section && previous?.section !== section) {
      changes.push(`${section}: ${name}: ${(badge ?? $("[data-badge]", run)).textContent}`);
      continue;
    }
    if (previous && previous.overdue !== run.dataset.overdue && badge) changes.push(`${name}: ${badge.textContent}`);
    if (previous && run.dataset.acknowledged && previous.acknowledged !== run.dataset.acknowledged) changes.push($(".acknowledged-by", run).innerText);
    if (!previous || previous.status === run.dataset.status) continue;
    changes.push(`${name}: ${$("[data-badge]", run)?.textContent}`);
    if (previous.concluded === run.dataset.concluded) continue;
    $(`[data-run-dom-id="${run.id}"]`, notices)?.classList.add("concluded");
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

// --- Start ---------------------------------------------------------------------------------------

function tick() {
  if (document.hidden) return;
  updateTimes();
  if (Date.now() > messageDueAt) closeStream();
  if (isRefreshDue()) refresh();
  removeConcludedNotices();
  removeFormerRows();
}

document.addEventListener("visibilitychange", tick);
applyZoneChoice();
observeSwaps();
scrollToCurrentStep();
expandLinks();
restoreSelection();
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
