// The import page: a zip may be dropped, and its upload shows that it goes on.
import { makeDropZone } from "../common/upload.js";

const form = document.querySelector("[data-import]");
const input = makeDropZone(form.querySelector("[data-drop]"));
const chosen = form.querySelector("[data-chosen]");

input.addEventListener("change", () => {
  const file = input.files[0];
  chosen.textContent = file ? `${file.name}, ${(file.size / 1e6).toFixed(1)} MB` : "";
});

form.addEventListener("submit", () => {
  const button = form.querySelector("button");
  button.disabled = true;
  button.textContent = "Uploading ...";
});
