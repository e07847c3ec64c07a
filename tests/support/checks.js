// What is asked of a page beside axe's rules; each answers with what is wrong, told in words.
({
  // One heading that names the page, names of their own for all that is referred to, headers that say
  // what they head, and no live region that reads out what is swapped.
  structure() {
    const wrong = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const headings = all("h1").filter((each) => !each.closest("dialog"));
    if (headings.length !== 1) wrong.push(`${headings.length} h1`);
    if (!/^\S.* · Release flows$/.test(document.title)) wrong.push(`title ${document.title}`);
    if (!document.documentElement.lang) wrong.push("no lang");
    const seen = new Set();
    for (const { id } of all("[id]")) seen.has(id) ? wrong.push(`twice #${id}`) : seen.add(id);
    for (const each of all("th:not([scope])")) wrong.push(`no scope ${each.outerHTML}`);
    for (const each of all("a[href], button")) {
      if (!each.checkVisibility() || each.textContent.trim() || each.ariaLabel || each.querySelector("img[alt]")) continue;
      wrong.push(`no name ${each.outerHTML}`);
    }
    const loud = "[aria-live], [role=status], [role=alert], [role=log]";
    for (const each of all(loud)) {
      if (each.querySelector(loud)) wrong.push(`live in live ${each.outerHTML}`);
      if (each.querySelector("#live") || each.id === "live") wrong.push("all of the page is live");
      if (each.closest("#live, #stream") && !each.matches("[data-search]")) wrong.push(`swapped and live ${each.outerHTML}`);
    }
    // What the server has said is seen, unless it is folded away; a part whose heading is all may go.
    for (const each of all("main section, main li, main tr, main p")) {
      const says = [...each.children].some((child) => !child.matches("h2") && child.textContent.trim());
      if (!says || each.checkVisibility() || each.closest("[hidden], details:not([open]), dialog, [popover]")) continue;
      wrong.push(`not seen ${each.outerHTML.slice(0, 160)}`);
    }
    const moving = document.getAnimations().length;
    if (moving) wrong.push(`${moving} move`);
    return wrong;
  },

  // How much wider than its window the page is, and what reaches out.
  sideways() {
    const by = document.documentElement.scrollWidth - innerWidth;
    if (by <= 0) return [];
    const out = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 1);
    return [`${by} px`, ...out.slice(0, 3).map((each) => each.outerHTML.slice(0, 160))];
  },

  // Text is cut only where it can be read: in a tooltip, or where its link or that of its row leads.
  cut() {
    const goesOn = "[title], a[href], summary, [data-upstream-error]";
    return [...document.querySelectorAll("body *")].filter((each) => {
      if (!each.checkVisibility() || each.closest("svg, input, .visually-hidden, thead")) return false;
      const { overflowX, overflowY } = getComputedStyle(each);
      if (![overflowX, overflowY].some((one) => one === "hidden" || one === "clip") || each.clientWidth < 2) return false;
      const cut = each.scrollHeight > each.clientHeight + 2 || each.scrollWidth > each.clientWidth + 1;
      return cut && !each.closest(goesOn) && !each.closest("tr, .run-list li")?.querySelector("a[href]");
    }).map((each) => each.outerHTML.slice(0, 160));
  },

  // With the system's few colours a thing shows by its border, its text or its lines.
  forced() {
    const wrong = [];
    const shown = (selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility());
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.backgroundColor = "Canvas";
    const canvas = getComputedStyle(probe).backgroundColor;
    probe.remove();
    const ground = (each) => {
      for (; each; each = each.parentElement) {
        const { backgroundColor } = getComputedStyle(each);
        if (!/, 0\)$|transparent/.test(backgroundColor)) return backgroundColor;
      }
      return canvas;
    };
    for (const each of shown(".badge, .overdue, .in-flight, .removed, .attempts, .notice, .panel, .summary-text, dialog, button, .button, input:not([type=checkbox], [type=radio], .picks *), select")) {
      const { borderTopStyle, borderTopWidth, borderTopColor } = getComputedStyle(each);
      if (borderTopStyle === "none" || parseFloat(borderTopWidth) < 0.5 || borderTopColor === ground(each.parentElement)) wrong.push(`no border ${each.outerHTML.slice(0, 120)}`);
    }
    for (const each of shown(".badge, .overdue, .title, h1, h2, p, td, th, dt, dd, label, button, a")) {
      if (each.textContent.trim() && getComputedStyle(each).color === ground(each)) wrong.push(`no text ${each.outerHTML.slice(0, 120)}`);
    }
    for (const each of shown(".history-chart .bar, .steps .bar .elapsed, .progress[data-severity] .elapsed, .progress[data-severity] .median, .glyph")) {
      const { fill, stroke } = getComputedStyle(each);
      const under = ground(each.parentElement);
      if ([fill, stroke].every((one) => one === "none" || one === under)) wrong.push(`no line ${each.outerHTML.slice(0, 120)}`);
    }
    // What is chosen differs from what is not, by more than its weight.
    const looks = (each) => {
      const { backgroundColor, color, borderBottomColor, borderTopColor } = getComputedStyle(each);
      return [backgroundColor, color, borderBottomColor, borderTopColor].join();
    };
    for (const [chosen, other] of [
      [".topbar nav [aria-current]", ".topbar nav a:not([aria-current])"],
      [".choices [aria-current]", ".choices a:not([aria-current])"],
      [".saved-views nav [aria-current]", ".saved-views nav a:not([aria-current])"],
      [".picks :checked + span", ".picks :not(:checked) + span"],
    ]) {
      const [one, two] = [shown(chosen)[0], shown(other)[0]];
      if (one && two && looks(one) === looks(two)) wrong.push(`looks like others: ${chosen}`);
    }
    return wrong;
  },

  // What has the focus has a ring, and something of it is not covered.
  focus() {
    const at = document.activeElement;
    if (at === document.body) return []; // between the page's last and its first
    const seen = at.matches(".picks input") ? at.nextElementSibling : at;
    const { outlineStyle, outlineWidth } = getComputedStyle(seen);
    const wrong = [];
    if (outlineStyle === "none" || parseFloat(outlineWidth) < 2) wrong.push(`no ring: ${at.outerHTML.slice(0, 160)}`);
    const points = [...seen.getClientRects()].flatMap(({ left, right, top, bottom }) =>
      [0.1, 0.5, 0.9].map((part) => [left + (right - left) * part, (top + bottom) / 2]));
    const hit = points.some(([x, y]) => {
      const found = document.elementFromPoint(x, y);
      return found && (seen.contains(found) || found.contains(seen));
    });
    return hit ? wrong : [...wrong, `covered: ${at.outerHTML.slice(0, 160)}`];
  },

  // Notes from now on what is read out, as window.heard.
  listen() {
    window.heard = [];
    const ear = new MutationObserver((changes) => {
      const said = changes.flatMap(({ type, target, addedNodes }) =>
        target.closest("[hidden]") ? [] : type === "attributes" ? [target] : [...addedNodes]);
      const texts = said.map(({ textContent }) => textContent.trim().replace(/\s+/g, " "));
      window.heard.push(...new Set(texts.filter(Boolean))); // shown and filled at once is said once
    });
    for (const each of document.querySelectorAll("[role=status], [role=alert], [aria-live]")) {
      ear.observe(each, { childList: true, subtree: true, attributeFilter: ["hidden"] });
    }
  },
})
