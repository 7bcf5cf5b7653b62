// Follows the sandbox: once a second, what is marked data-live is fetched again. Everything else works without this.
"use strict";

const before = new Map();

function isInUse(part) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function replace(part, fresh) {
  if (before.get(part.id) === fresh.innerHTML || isInUse(part)) return;
  before.set(part.id, fresh.innerHTML);
  const open = [...part.querySelectorAll("details[open]")].map((each) => each.id);
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const isSummary = focused && focused.tagName === "SUMMARY";
  const id = focused && (isSummary ? focused.parentElement.id : focused.id);
  part.replaceChildren(...fresh.childNodes);
  for (const each of open) document.getElementById(each)?.setAttribute("open", "");
  const again = id ? document.getElementById(id) : null;
  (isSummary ? again?.querySelector("summary") : again)?.focus({ preventScroll: true });
}

async function follow() {
  if (!document.hidden) {
    let answers = false;
    try {
      const answer = await fetch(location.href, { headers: { "X-Part": "live" } });
      answers = answer.ok;
      if (answers) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) replace(part, fresh.getElementById(part.id));
      }
    } catch {
      // It was stopped; the page says so until it is there again.
    }
    document.getElementById("lost").hidden = answers;
  }
  setTimeout(follow, 1000);
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});

// On a narrow screen, where only some of the pages' names are to be seen. Scrolling into view would move the first Tab.
const current = document.querySelector("nav [aria-current]");
if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 32;

if (document.getElementById("status")) setTimeout(follow, 1000);
