// Notices, the dialog and its focus, selected runs, texts to copy.
"use strict";

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
  const field = ctx.response?.raw.headers.get("x-field");
  const line = dialog.open && $(field ? `[data-error="${field}"]` : "[data-error]", dialog);
  const text = responseMessage(ctx) ?? (status < 500 && `${status} ${ctx.response.raw.statusText}`.trim());
  if (line && dialog.contains(target)) {
    fillMessage(line, text);
    line.hidden = false;
    // The focused button was disabled during the request; the error is about the fields beside it.
    $("input", line.parentElement).focus();
  } else {
    showNotice("failed", text);
  }
}

document.addEventListener("htmx:response:error", handleFailure);
document.addEventListener("htmx:error", handleFailure);

// --- The dialog: opened and closed by swaps; focus is restored ------------------------------------

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
  for (const line of dialog.querySelectorAll("[data-error]")) line.hidden = true;
});

document.addEventListener("htmx:before:swap", () => {
  rememberFocus(document.activeElement);
  holdPlace();
});

document.addEventListener("htmx:after:swap", ({ target, detail: { ctx } }) => {
  if (target === stream || ctx.response.status >= 400) return; // stream messages are handled above
  if (ctx.target === dialog) {
    rememberFocus(target);
    if (!dialog.open) dialog.showModal();
  } else if (dialog.contains(target)) {
    dialog.close();
    refreshedAt = 0; // show the result soon
  }
  restorePlace();
  afterSwap();
});

dialog.addEventListener("close", () => {
  if (!$(".htmx-request", dialog)) dialog.replaceChildren();
  restoreFocus();
});

// --- Selected runs: kept here, since swaps replace the rows ---------------------------------------

const selected = new Set(); // values of their checkboxes
const RUN_CHECKBOX = "input[type=checkbox][name=run]";
const runCheckboxes = (root = document) => [...root.querySelectorAll(RUN_CHECKBOX)];

// Runs without a checkbox (no longer abortable, or on another page) are deselected.
function restoreSelection() {
  const boxes = runCheckboxes();
  const available = new Set(boxes.map((box) => box.value));
  for (const key of selected) if (!available.has(key)) selected.delete(key);
  for (const box of boxes) box.checked = selected.has(box.value);
  for (const all of document.querySelectorAll("[data-select-all]")) {
    const inTable = runCheckboxes(all.closest("table"));
    all.checked = inTable.every((box) => box.checked);
    all.indeterminate = !all.checked && inTable.some((box) => box.checked);
  }
  const bar = $(".bulk-abort-bar");
  if (!bar) return;
  $("[data-selected-count]", bar).textContent = selected.size;
  // Without a selection the bar disappears, with its focused button.
  if (!selected.size && bar.contains(document.activeElement)) $("#main").focus({ preventScroll: true });
}

document.addEventListener("change", ({ target }) => {
  const isAll = target.matches("[data-select-all]");
  if (!isAll && !target.matches(RUN_CHECKBOX)) return;
  for (const { value } of isAll ? runCheckboxes(target.closest("table")) : [target]) {
    if (target.checked) selected.add(value);
    else selected.delete(value);
  }
  restoreSelection();
});

document.addEventListener("reset", ({ target }) => {
  if (target.id !== "bulk-abort-form") return;
  const last = [...selected].at(-1);
  runCheckboxes().find(({ value }) => value === last)?.focus({ preventScroll: true });
  selected.clear();
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
