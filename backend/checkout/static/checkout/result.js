// A result: a box and its row light up together; a correction is sent without leaving the page.
import "../catalogue/find_product.js";
import { send } from "../common/upload.js";

document.addEventListener("click", (event) => {
  const box = event.target.closest(".ck-box");
  const row = event.target.closest(".ck-item");
  if (box) choose(box.closest("[data-result]"), box.dataset.item, "row");
  else if (event.target.closest("[data-show]")) choose(row.closest("[data-result]"), row.dataset.item, "box");
  else if (row && !event.target.closest("a, button, details, input")) {
    choose(row.closest("[data-result]"), row.dataset.item, "");
  }
});

/** Light up an item; `comeTo` is what is scrolled to: its "row", its "box", or nothing. */
function choose(result, item, comeTo) {
  for (const one of result.querySelectorAll(".ck-box, .ck-item")) {
    const chosen = one.dataset.item === item;
    one.classList.toggle("ck-chosen-item", chosen);
    if (one.matches(".ck-box")) one.setAttribute("aria-pressed", String(chosen));
  }
  const target = { row: ".ck-item", box: ".ck-box" }[comeTo];
  if (target) {
    result
      .querySelector(`${target}[data-item="${item}"]`)
      .scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

document.addEventListener("input", (event) => {
  const field = event.target.closest("[data-find]");
  if (field) field.form.querySelector("[data-other]").checked = true;
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-correct]");
  if (!form) return;
  event.preventDefault();
  const items = form.closest("[data-items]");
  const photo = items.querySelector("[data-photo]")?.getAttribute("href");
  const { body, problem } = await send(form.action, new FormData(form));
  if (problem) {
    const place = form.querySelector("[role=alert]");
    place.textContent = problem;
    place.hidden = false;
    return;
  }
  const item = form.querySelector("[name=item]").value;
  items.innerHTML = body.html;
  for (const image of items.querySelectorAll("[data-photo]")) image.setAttribute("href", photo);
  choose(items.closest("[data-result]"), item, "row");
});
