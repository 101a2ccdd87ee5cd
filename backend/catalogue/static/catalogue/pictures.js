// A product's pictures: several are sent one by one, each with its progress; a refused one says why, the others stay.
// On the page of a new product the chosen files only show their names, for they travel with the form.
import { makeDropZone, send } from "../common/upload.js";

const ASK_AGAIN_MS = 1500;
const ASK_AT_MOST = 200;

const section = document.querySelector("[data-pictures]");
for (const zone of document.querySelectorAll("[data-drop]")) {
  const input = makeDropZone(zone);
  const list = zone.querySelector("[data-chosen]");
  if (section && section.contains(zone)) {
    section.querySelector("[data-without-script]").hidden = true;
    input.addEventListener("change", () => addAll([...input.files], input, list));
  } else {
    input.addEventListener("change", () => list.replaceChildren(...[...input.files].map((file) => line(file.name))));
  }
}

function line(text, className = "") {
  const item = document.createElement("li");
  item.textContent = text;
  item.className = className;
  return item;
}

async function addAll(files, input, list) {
  list.replaceChildren();
  const waiting = files.map((file) => {
    const item = line(file.name);
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    item.append(bar);
    list.append(item);
    return { file, item, bar };
  });
  let added = 0;
  for (const { file, item, bar } of waiting) {
    const data = new FormData();
    data.append("pictures", file);
    const answer = await send(section.dataset.pictures, data, (share) => (bar.value = share));
    if (answer.problem) {
      item.replaceWith(line(`${file.name}: ${answer.problem}`, "ck-problem"));
    } else {
      added += 1;
      item.remove();
    }
  }
  input.value = "";
  if (added > 0) {
    list.prepend(line(added === 1 ? "1 picture added." : `${added} pictures added.`, "ck-done"));
    await refresh();
    watch();
  }
}

async function refresh() {
  const response = await fetch(section.dataset.pictures, { headers: { Accept: "application/json" } });
  if (!response.ok || response.redirected) return 0;
  const { html, waiting } = await response.json();
  section.querySelector("[data-grid]").innerHTML = html;
  return waiting;
}

/** While pictures are pending, ask how they are. */
let watching = false;
async function watch() {
  if (watching) return;
  watching = true;
  for (let asked = 0; asked < ASK_AT_MOST; asked += 1) {
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    if (!document.hidden && (await refresh()) === 0) break;
  }
  watching = false;
}

if (section) {
  if (section.querySelector("[data-waiting]")) watch();
  section.addEventListener("click", async (event) => {
    const link = event.target.closest("[data-delete]");
    if (!link) return;
    event.preventDefault();
    if (!window.confirm("Delete this picture? It will no longer be found.")) return;
    const data = new FormData();
    data.append("post", "yes");
    data.append("csrfmiddlewaretoken", document.querySelector("[name=csrfmiddlewaretoken]").value);
    await fetch(link.href, { method: "POST", body: data });
    await refresh();
  });
}
