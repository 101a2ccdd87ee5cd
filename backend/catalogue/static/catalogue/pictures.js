// A product's pictures: several are sent one by one, each with its progress; a refused one says why, the others stay.
// Each is asked about first: one that something speaks against waits until a person says that it is to be added.
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
    const findings = await findFaults(file);
    if (findings.length > 0) item.replaceWith(question(file, findings));
    else if (await add(file, item, bar)) added += 1;
  }
  input.value = "";
  if (added > 0) await tellAdded(list, added);
}

/** What speaks against a picture; nothing where it cannot be asked: it is added then, as ever. */
async function findFaults(file) {
  if (!section.dataset.check) return [];
  const { body, problem } = await send(section.dataset.check, formOf(file));
  return problem ? [] : body.findings;
}

function formOf(file) {
  const data = new FormData();
  data.append("pictures", file);
  return data;
}

/** Sends it; whether it was taken. `item` goes then, else it says why not. */
async function add(file, item, bar) {
  const answer = await send(section.dataset.pictures, formOf(file), (share) => (bar.value = share));
  if (answer.problem) item.replaceWith(line(`${file.name}: ${answer.problem}`, "ck-problem"));
  else item.remove();
  return !answer.problem;
}

async function tellAdded(list, n) {
  list.prepend(line(n === 1 ? "1 picture added." : `${n} pictures added.`, "ck-done"));
  await refresh();
  watch();
}

function question(file, findings) {
  const item = line("", "ck-question");
  const thumbnail = document.createElement("img");
  thumbnail.src = URL.createObjectURL(file);
  thumbnail.alt = "";
  thumbnail.className = "ck-thumbnail";
  thumbnail.addEventListener("load", () => URL.revokeObjectURL(thumbnail.src));
  const told = document.createElement("div");
  told.append(`${file.name} was not added yet:`);
  for (const { finding, detail } of findings) {
    const word = document.createElement("span");
    word.className = "ck-label ck-warning";
    word.textContent = finding;
    const reason = document.createElement("p");
    reason.append(word, ` ${detail}.`);
    told.append(reason);
  }
  const acts = document.createElement("p");
  acts.className = "ck-acts";
  const yes = button("Add it all the same", async () => {
    acts.replaceChildren("Adding ...");
    const list = item.parentElement;
    if (await add(file, item, {})) await tellAdded(list, 1);
  });
  acts.append(yes, button("Leave it out", () => item.remove()));
  told.append(acts);
  item.append(thumbnail, told);
  return item;
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "ck-button ck-plain";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
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
