// Checks of a page's current state beside axe's rules. Each returns a list of problems, [] if none.
({
  // One heading and a title that name the page, unique ids, an accessible name for each link and
  // button, a scope for each table header, and no live region that reads out what is swapped.
  structure() {
    const problems = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const headings = all("h1").filter((heading) => !heading.closest("dialog"));
    if (headings.length !== 1) problems.push(`${headings.length} h1 headings`);
    if (!/^\S.* · Release flows$/.test(document.title)) problems.push(`unexpected title: ${document.title}`);
    if (!document.documentElement.lang) problems.push("no lang attribute");
    const ids = new Set();
    for (const { id } of all("[id]")) ids.has(id) ? problems.push(`duplicate id #${id}`) : ids.add(id);
    for (const header of all("th:not([scope])")) problems.push(`no scope: ${header.outerHTML}`);
    for (const control of all("a[href], button")) {
      if (!control.checkVisibility() || control.textContent.trim() || control.ariaLabel || control.querySelector("img[alt]")) continue;
      problems.push(`no accessible name: ${control.outerHTML}`);
    }
    const liveRegions = "[aria-live], [role=status], [role=alert], [role=log]";
    for (const region of all(liveRegions)) {
      if (region.querySelector(liveRegions)) problems.push(`nested live regions: ${region.outerHTML}`);
      if (region.querySelector("#live") || region.id === "live") problems.push("all of #live is in a live region");
      if (region.closest("#live, #stream") && !region.matches("[data-search]")) problems.push(`live region in a swapped part: ${region.outerHTML}`);
    }
    // Content of the server is visible unless it is collapsed. A part with only a heading may be hidden.
    for (const part of all("main section, main li, main tr, main p")) {
      const hasContent = [...part.children].some((child) => !child.matches("h2") && child.textContent.trim());
      if (!hasContent || part.checkVisibility() || part.closest("[hidden], details:not([open]), dialog, [popover]")) continue;
      problems.push(`not visible: ${part.outerHTML.slice(0, 160)}`);
    }
    const animations = document.getAnimations().length;
    if (animations) problems.push(`${animations} animations`);
    return problems;
  },

  // By how many pixels the page is wider than its window, and the elements beyond the right edge.
  horizontalOverflow() {
    const overflow = document.documentElement.scrollWidth - innerWidth;
    if (overflow <= 0) return [];
    const elements = [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > innerWidth + 1);
    return [`${overflow} px too wide`, ...elements.slice(0, 3).map((element) => element.outerHTML.slice(0, 160))];
  },

  // Text may be truncated only where a tooltip, or the page that it or its row links to, has all of it.
  truncatedText() {
    const fullTextSources = "[title], a[href], summary, [data-upstream-error]";
    return [...document.querySelectorAll("body *")].filter((element) => {
      if (!element.checkVisibility() || element.closest("svg, input, .visually-hidden, thead")) return false;
      const { overflowX, overflowY } = getComputedStyle(element);
      if (![overflowX, overflowY].some((overflow) => overflow === "hidden" || overflow === "clip") || element.clientWidth < 2) return false;
      const isTruncated = element.scrollHeight > element.clientHeight + 2 || element.scrollWidth > element.clientWidth + 1;
      return isTruncated && !element.closest(fullTextSources) && !element.closest("tr, .run-list li")?.querySelector("a[href]");
    }).map((element) => element.outerHTML.slice(0, 160));
  },

  // In forced colours, with few colours of the system, an element is visible by its border, text or lines.
  forcedColors() {
    const problems = [];
    const findVisible = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.backgroundColor = "Canvas";
    const canvas = getComputedStyle(probe).backgroundColor;
    probe.remove();
    const findBackground = (element) => {
      for (; element; element = element.parentElement) {
        const { backgroundColor } = getComputedStyle(element);
        if (!/, 0\)$|transparent/.test(backgroundColor)) return backgroundColor;
      }
      return canvas;
    };
    for (const element of findVisible(".badge[data-tone=people], .overdue, .in-flight, .removed, .attempts, .notice, .panel, .summary-text, dialog, button, .button, input:not([type=checkbox], [type=radio], .picks *), select")) {
      const { borderTopStyle, borderTopWidth, borderTopColor } = getComputedStyle(element);
      if (borderTopStyle === "none" || parseFloat(borderTopWidth) < 0.5 || borderTopColor === findBackground(element.parentElement)) problems.push(`no visible border: ${element.outerHTML.slice(0, 120)}`);
    }
    for (const element of findVisible(".badge, .overdue, .title, h1, h2, p, td, th, dt, dd, label, button, a")) {
      if (element.textContent.trim() && getComputedStyle(element).color === findBackground(element)) problems.push(`no visible text: ${element.outerHTML.slice(0, 120)}`);
    }
    for (const shape of findVisible(".history-chart .bar, .steps .bar .elapsed, .progress[data-severity] .elapsed, .progress[data-severity] .median, .glyph")) {
      const { fill, stroke } = getComputedStyle(shape);
      const background = findBackground(shape.parentElement);
      if ([fill, stroke].every((color) => color === "none" || color === background)) problems.push(`no visible line: ${shape.outerHTML.slice(0, 120)}`);
    }
    // A selected element differs from the others by more than its font weight.
    const describeColors = (element) => {
      const { backgroundColor, color, borderBottomColor, borderTopColor } = getComputedStyle(element);
      return [backgroundColor, color, borderBottomColor, borderTopColor].join();
    };
    for (const [selected, unselected] of [
      [".topbar nav [aria-current]", ".topbar nav a:not([aria-current])"],
      [".choices [aria-current]", ".choices a:not([aria-current])"],
      [".saved-views nav [aria-current]", ".saved-views nav a:not([aria-current])"],
      [".picks :checked + span", ".picks :not(:checked) + span"],
    ]) {
      const [selectedElement, unselectedElement] = [findVisible(selected)[0], findVisible(unselected)[0]];
      if (selectedElement && unselectedElement && describeColors(selectedElement) === describeColors(unselectedElement)) problems.push(`same colours as unselected: ${selected}`);
    }
    return problems;
  },

  // The focused element has a ring, and is not completely covered.
  focusVisibility() {
    const focused = document.activeElement;
    if (focused === document.body) return []; // between the page's last and first focusable element
    // These inputs are hidden, and the ring is around the text beside them.
    const target = focused.matches(".picks input") ? focused.nextElementSibling : focused;
    const { outlineStyle, outlineWidth } = getComputedStyle(target);
    const problems = [];
    if (outlineStyle === "none" || parseFloat(outlineWidth) < 2) problems.push(`no focus ring: ${focused.outerHTML.slice(0, 160)}`);
    const points = [...target.getClientRects()].flatMap(({ left, right, top, bottom }) =>
      [0.1, 0.5, 0.9].map((fraction) => [left + (right - left) * fraction, (top + bottom) / 2]));
    const isUncovered = points.some(([x, y]) => {
      const topmost = document.elementFromPoint(x, y);
      return topmost && (target.contains(topmost) || topmost.contains(target));
    });
    return isUncovered ? problems : [...problems, `covered: ${focused.outerHTML.slice(0, 160)}`];
  },

  // Records from now on what live regions announce, as window.recordedAnnouncements.
  // (window.announcements is the element with that id.)
  recordAnnouncements() {
    window.recordedAnnouncements = [];
    const observer = new MutationObserver((mutations) => {
      const announcedNodes = mutations.flatMap(({ type, target, addedNodes }) =>
        target.closest("[hidden]") ? [] : type === "attributes" ? [target] : [...addedNodes]);
      const texts = announcedNodes.map(({ textContent }) => textContent.trim().replace(/\s+/g, " "));
      // A region that is shown and filled at once is announced once.
      window.recordedAnnouncements.push(...new Set(texts.filter(Boolean)));
    });
    for (const region of document.querySelectorAll("[role=status], [role=alert], [aria-live]")) {
      observer.observe(region, { childList: true, subtree: true, attributeFilter: ["hidden"] });
    }
  },
})
