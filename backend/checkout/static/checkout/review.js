// Reviewing corrections: one key decides, and what the gallery says is asked when the page is opened.
import { send } from "../common/upload.js";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target || target.disabled) return;
  event.preventDefault();
  target.click();
});

// A second press while the first is under way does nothing.
document.addEventListener("submit", (event) => {
  const form = event.target.closest(".ck-review-acts");
  if (!form) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  form.classList.add("ck-busy");
});
// Back from the cache of the browser, it may be pressed again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll(".ck-review-acts")) {
    delete form.dataset.sent;
    form.classList.remove("ck-busy");
  }
});

const page = document.querySelector("[data-review]");
if (page?.dataset.checkUrl) check();

async function check() {
  const place = page.querySelector("[data-check]");
  const unchecked = place.querySelector("[data-unchecked]");
  if (unchecked) unchecked.textContent = "Asking the gallery ...";
  const { body, problem } = await send(page.dataset.checkUrl, new FormData());
  if (problem) {
    const told = document.createElement("p");
    told.className = "ck-problem";
    told.textContent = problem;
    if (unchecked) unchecked.replaceWith(told);
    else place.append(told);
    return;
  }
  place.innerHTML = body.html;
  page.querySelector("[data-why]").hidden = !body.worse;
}
