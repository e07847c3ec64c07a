// Notices, the dialog, the focus, selected runs, the browser’s notification, texts to copy.
"use strict";

// --- Notices ------------------------------------------------------------------------------------

// Without a text there was no response: show the template's text for that.
function fillMessage(element, text) {
  const textElement = $("[data-text]", element);
  textElement.textContent = text || textElement.dataset.noResponseText;
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

// The message of a response: plain text, or [data-reason] of an error page.
function responseMessage({ response, text = "" }) {
  if (response?.headers.get("content-type")?.startsWith("text/plain")) return text.trim();
  return errorReason(text);
}

const errorReason = (html = "") => $("[data-reason]", new DOMParser().parseFromString(html, "text/html"))?.textContent.trim();

function handleFailure({ target, detail: { ctx } }) {
  if (!ctx) return;
  const { status, headers } = ctx.response ?? {};
  if (status === 401) return showSignedOut(responseMessage(ctx));
  if (target.matches?.("[hx-trigger^=load], [data-look-at]")) return; // it is requested again
  if (target.id === "live") {
    // Ours says why; a load balancer without a dashboard behind it answers 404, too.
    const isNotFound = status === 404 && Boolean(errorReason(ctx.text));
    finishRefresh(false, status === 503 ? responseMessage(ctx) : "", isNotFound);
    if (!isNotFound || isGone) return;
    isGone = true;
  }
  const text = responseMessage(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  const line = dialog.contains(target) && $(`[data-error="${headers?.get("x-field") ?? ""}"]`, dialog);
  if (!line) return showNotice("failed", text);
  // Closed while it was being sent.
  if (!dialog.open) return showNotice("failed", text || $("[data-text]", line).dataset.noResponseText);
  fillMessage(line, text);
  line.hidden = false;
  // The focused button was disabled during the request; the error is about the fields beside it.
  $("input", line.parentElement).focus();
}

document.addEventListener("htmx:response:error", handleFailure);
document.addEventListener("htmx:error", handleFailure);

document.addEventListener("htmx:before:request", ({ target }) => {
  if (!dialog.contains(target) || target.id === "abort-facts") return;
  // A refresh that was requested before the abort must not overwrite its result.
  htmx.trigger("#live", "htmx:abort");
  for (const line of $$("[data-error]", dialog)) line.hidden = true;
});

// --- The focus: whatever a swap removes, it stays at the same run -----------------------------------

let focusRunId = null; // the run that had the focus last
let isAcknowledging = false; // at a button of an acknowledgement; its successor may be loaded later

function rememberFocus(element) {
  // The heading stands in for a button that is to come; a disabled button of the dialog loses the focus.
  if (element.matches("h1") || (element === document.body && dialog.open)) return;
  focusRunId = element === document.body ? null : (element.closest("[data-run]")?.id ?? focusRunId);
  isAcknowledging = Boolean(element.closest("[data-acknowledgements]"));
}

function restoreFocus() {
  const at = document.activeElement;
  const successor = isAcknowledging && $("[data-acknowledgements] button");
  if (successor && at.matches("body, h1")) successor.focus({ preventScroll: true });
  else if (at === document.body && focusRunId) ($(`#${CSS.escape(focusRunId)} :is(h1[tabindex], a.title)`) ?? $("#main")).focus({ preventScroll: true });
}

dialog.addEventListener("close", () => {
  if (!$(".htmx-request", dialog)) dialog.replaceChildren();
  restoreFocus();
});

// --- Selected runs --------------------------------------------------------------------------------

const RUN_CHECKBOX = "input[type=checkbox][name=run]";
let lastSelected = null; // its checkbox

const selectedRuns = () => $$(`${RUN_CHECKBOX}:checked`).map(({ value }) => value);

function updateSelection() {
  for (const all of $$("[data-select-all]")) {
    const boxes = $$(RUN_CHECKBOX, all.closest("table"));
    all.checked = boxes.every((box) => box.checked);
    all.indeterminate = !all.checked && boxes.some((box) => box.checked);
  }
  const { length } = selectedRuns();
  for (const count of $$("[data-selected-count]")) count.textContent = length;
  // Without a selection the bar disappears, with its focused button.
  if (!length && $(".bulk-abort-bar :focus")) $("#main").focus({ preventScroll: true });
}

document.addEventListener("change", ({ target }) => {
  const isAll = target.matches("[data-select-all]");
  if (!isAll && !target.matches(RUN_CHECKBOX)) return;
  for (const box of isAll ? $$(RUN_CHECKBOX, target.closest("table")) : [target]) {
    box.checked = target.checked;
    if (box.checked) lastSelected = box;
  }
  updateSelection();
});

document.addEventListener("reset", () => {
  lastSelected?.focus({ preventScroll: true });
  setTimeout(updateSelection); // the form is reset after this event
});

// --- The browser tells when the run ends ------------------------------------------------------------

const isTelling = () => root.dataset.telling === "on";

function setTelling(state) {
  root.dataset.telling = state; // "on", "off", or why not: "denied", "none"
  keepStream();
  announce($(`.muted[data-telling="${state}"]`)?.textContent ?? "");
  tellIfEnded();
}

async function switchTelling() {
  if (isTelling()) return setTelling("off");
  let permission = "none";
  try {
    // Phones may have the class, but throw. Without the permission this shows nothing.
    if (Notification.permission !== "granted") new Notification("");
    permission = await Notification.requestPermission();
  } catch {}
  setTelling({ granted: "on", none: "none" }[permission] ?? "denied");
}

function tellIfEnded() {
  if (!isTelling() || $("[data-tell-end]") || !$("#live > .run")) return;
  setTelling("off");
  const notification = new Notification($("h1").textContent, { body: $("#run-summary").textContent.trim(), tag: location.pathname });
  notification.addEventListener("click", () => {
    focus();
    notification.close();
  });
}

// --- Texts to copy --------------------------------------------------------------------------------

async function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  const { textContent: label, dataset: { doneLabel } } = button;
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch { // no access to the clipboard: the user copies the selected text
    text.closest("details")?.toggleAttribute("open", true);
    return getSelection().selectAllChildren(text);
  }
  if (label === doneLabel) return; // pressed again
  button.textContent = doneLabel;
  announce(doneLabel);
  setTimeout(() => { button.textContent = label; }, 2_000);
}
