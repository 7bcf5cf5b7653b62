// Follows the sandbox: once a second, what is marked data-live is fetched again. Everything else works without this.
"use strict";

let isPaused = false;

// An entry that is open, or where the keyboard or a selection is, stays when the page has no more room for it.
function isInUse(node) {
  const selection = document.getSelection();
  const isSelected = selection && !selection.isCollapsed && node.contains(selection.anchorNode);
  return node.open || node.contains(document.activeElement) || isSelected;
}

// Filled by this script, or held still.
function isOwn(node) {
  return "from" in node.dataset || "pause" in node.dataset || (isPaused && "log" in node.dataset);
}

function mayGo(node) {
  return !(node.nodeName === "DETAILS" && isInUse(node));
}

function isText(node) {
  return node.nodeType === Node.TEXT_NODE;
}

// Changes only what differs, so that focus, selection, scroll positions and open entries stay.
function update(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (!isOwn(old)) {
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    updateChildren(old, [...fresh.childNodes]);
  }
}

function updateChildren(parent, fresh) {
  const wanted = new Set(fresh.map((node) => node.id).filter(Boolean));
  for (const node of [...parent.children]) if (node.id && !wanted.has(node.id) && mayGo(node)) node.remove();
  const known = new Map([...parent.children].filter((node) => node.id).map((node) => [node.id, node]));
  let next = parent.firstChild;
  for (const node of fresh) {
    const same = known.get(node.id);
    // What has no name of its own is known by its place, and whether it is text.
    const isPassed = () => (same ? next !== same && !next.id : isText(next) && !isText(node));
    while (next && isPassed()) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
    if (same && same !== next) parent.insertBefore(same, next);
    const old = same ?? (next && !next.id && !node.id && isText(next) === isText(node) ? next : null);
    if (old === null) {
      parent.insertBefore(node, next);
    } else {
      if (old === next) next = next.nextSibling;
      update(old, node);
    }
  }
  while (next) {
    const last = next;
    next = next.nextSibling;
    if (mayGo(last)) last.remove();
  }
}

async function fetched(address) {
  const answer = await fetch(address, { headers: { "X-Part": "live" } });
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

// The bodies of an entry come when it is opened, and again when it has been answered since.
async function fill(entry) {
  const place = entry.querySelector("[data-from]");
  if (!place || place.dataset.has === entry.dataset.outcome) return;
  place.dataset.has = entry.dataset.outcome;
  try {
    const bodies = (await fetched(place.dataset.from))?.querySelector(".bodies");
    if (bodies) place.replaceChildren(bodies);
  } catch {
    delete place.dataset.has;
  }
}

async function follow() {
  if (!document.hidden) {
    let answers = false;
    try {
      const fresh = await fetched(document.body.dataset.follow);
      answers = fresh !== null;
      if (answers) {
        const focused = document.activeElement;
        for (const part of document.querySelectorAll("[data-live]")) {
          updateChildren(part, [...(fresh.getElementById(part.id)?.childNodes ?? [])]);
        }
        prepare();
        if (!focused.isConnected) document.getElementById("main").focus({ preventScroll: true });
        document.querySelectorAll("details[open]").forEach(fill);
      }
    } catch {
      // It was stopped; the page says so until it is there again.
    }
    document.getElementById("lost").hidden = answers;
  }
  setTimeout(follow, 1000);
}

function prepare() {
  for (const button of document.querySelectorAll("[data-pause]")) {
    button.hidden = false;
    button.textContent = isPaused ? "Resume" : "Pause";
  }
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// It does not bubble.
document.addEventListener("toggle", (event) => event.target.open && fill(event.target), true);

document.addEventListener("click", async (event) => {
  if (event.target.closest("[data-pause]")) {
    isPaused = !isPaused;
    prepare();
  }
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});

// On a narrow screen, where only some of the pages' names are to be seen. Scrolling into view would move the first Tab.
const current = document.querySelector("nav [aria-current]");
if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 32;

if (document.body.dataset.follow) {
  prepare();
  setTimeout(follow, 1000);
}
