// Follows what is under way or unknown, and shows the page anew when that has changed. Without a script, the page
// reloads itself.
const shown = document.querySelector("[data-follow]");

async function follow() {
  try {
    const answer = await fetch(shown.dataset.follow);
    if (answer.status === 404 || answer.redirected) {
      shown.textContent = "This cannot be followed here any more: the shop was started anew, or you are signed out.";
      shown.parentElement.querySelector(".spinner")?.remove();
      return;
    }
    const deal = await answer.json();
    if (deal.state !== shown.dataset.state) {
      location.reload();
      return;
    }
    if (deal.state === "under way" && deal.text) shown.textContent = deal.text;
  } catch {
    // The network is away; what was asked for goes on at the shop's.
  }
  setTimeout(follow, shown.dataset.state === "under way" ? 400 : 3000);
}

if (shown) follow();
