// The recognise page: a photo is dropped, pasted, chosen or taken, sent, and its result shown below.
import { leaveToUs, makeDropZone, send, takePasted } from "../common/upload.js";

const form = document.querySelector("[data-recognise]");
const status = form.querySelector("[data-status]");
const answer = document.querySelector("[data-answer]");
const input = makeDropZone(form.querySelector("[data-drop]"));
const camera = leaveToUs(form.querySelector("#camera"));
const zone = form.querySelector("[data-drop]");
let shownPhoto = null;
let newest = 0;

takePasted(input);
input.addEventListener("change", () => recognise(input));
camera.addEventListener("change", () => recognise(camera));
form.addEventListener("submit", (event) => event.preventDefault());

async function recognise(from) {
  const photo = from.files[0];
  if (!photo) return;
  const turn = (newest += 1);
  const data = new FormData();
  data.append("image", photo);
  data.append("product_set", form.elements.product_set ? form.elements.product_set.value : "");
  say(`Sending ${photo.name} ...`);
  zone.classList.add("ck-busy");
  const { body, problem } = await send(window.location.href, data, (share) => {
    if (turn === newest) say(share < 1 ? `Sending ${photo.name}: ${Math.round(100 * share)} %` : "Recognising ...");
  });
  from.value = "";
  if (turn !== newest) return; // another photo was sent meanwhile
  zone.classList.remove("ck-busy");
  if (problem) {
    say(`${photo.name}: ${problem}`, true);
    return;
  }
  show(body, photo);
}

function say(text, isProblem = false) {
  status.textContent = text;
  status.classList.toggle("ck-problem", isProblem);
}

/** The photo is shown from this computer: it need not come back over the network. */
function show({ html, url }, photo) {
  answer.innerHTML = html;
  if (shownPhoto) URL.revokeObjectURL(shownPhoto);
  shownPhoto = URL.createObjectURL(photo);
  for (const image of answer.querySelectorAll("[data-photo]")) {
    image.setAttribute(image instanceof SVGElement ? "href" : "src", shownPhoto);
  }
  const link = document.createElement("a");
  link.href = url;
  link.className = "ck-link";
  link.textContent = "Open its page";
  say(`${photo.name} is answered. `);
  status.append(link);
  answer.scrollIntoView({ block: "start", behavior: "smooth" });
}
