// Keyboard shortcuts, other clicks, the theme, the list of steps.
"use strict";

// --- Keyboard shortcuts: navigation only, none changes a run --------------------------------------

const shortcutsToggle = $("[data-shortcuts-toggle]");
const ROW_SELECTOR = "[data-last-success], [data-run], [data-abort-row], [data-stage], li";
const rowOf = (link) => link.closest(ROW_SELECTOR);

// The field in the header, or that of the search page; in a narrow window a link to that page.
const searchField = () => $$("[data-site-search]").find((element) => element.checkVisibility());

// Each returns what gets the focus; `at` is the index of the link in whose row the focus is.
const SHORTCUTS = {
  j: (links, at) => links[at + 1],
  k: (links, at) => links[at - 1],
  f: (links, at) => [...links.slice(at + 1), ...links.slice(0, at + 1)].find((link) => rowOf(link)?.dataset.status === "failure"),
  "/": searchField,
  "?": () => $("#shortcuts").showModal(),
};

document.addEventListener("keydown", (event) => {
  const isSearch = event.key?.toLowerCase() === "k" && (event.ctrlKey || event.metaKey); // from any field
  const shortcut = isSearch ? searchField : SHORTCUTS[event.key];
  if (!shortcut || !shortcutsToggle.checked || event.isComposing || event.altKey || $("dialog[open], :popover-open")) return;
  // Checkboxes take no text.
  const isTyped = event.target.isContentEditable || event.target.closest("input:not([type=checkbox]), textarea, select");
  if (!isSearch && (event.ctrlKey || event.metaKey || isTyped)) return;
  event.preventDefault();
  const links = $$("#live a.title, #live [data-stage] > a").filter((link) => link.checkVisibility() && !link.closest("[inert]"));
  const element = shortcut(links, links.findIndex((link) => rowOf(link)?.contains(document.activeElement)));
  element?.focus();
  element?.select?.();
});

shortcutsToggle.checked = readPreference("keys") !== "off";
shortcutsToggle.addEventListener("change", () => storePreference("keys", shortcutsToggle.checked ? "on" : "off"));

// --- Clicks -------------------------------------------------------------------------------------

function closeNotice(button) {
  button.closest(".notice").remove();
  $("#main").focus({ preventScroll: true });
}

// In a cookie, so that the server renders the theme and nothing flashes.
function switchTheme() {
  const next = { light: "dark", dark: "system" }[root.dataset.theme] ?? "light";
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  document.cookie = `theme=${next}; path=${$(".brand").pathname}; max-age=31536000; samesite=lax`;
}

const BUTTONS = {
  "[data-close]": closeNotice,
  "[data-zone-choice]": chooseZone,
  "[data-copy]": copy,
  "[data-tell-end-switch]": switchTelling,
  "[data-theme-toggle]": switchTheme,
};

document.addEventListener("click", ({ target }) => {
  for (const [selector, action] of Object.entries(BUTTONS)) if (target.closest(selector)) action(target.closest(selector));
});

// --- The lines of a log that contain a text -------------------------------------------------------

function findInLog() {
  const field = $("[data-find]");
  if (!field) return;
  const text = field.value.toLowerCase();
  for (const line of $$("[data-log-line]")) line.hidden = !line.textContent.toLowerCase().includes(text);
}

document.addEventListener("input", ({ target }) => target.matches("[data-find]") && findInLog());
document.addEventListener("submit", (event) => $("[data-find]", event.target) && event.preventDefault());

// --- The list of steps --------------------------------------------------------------------------

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
