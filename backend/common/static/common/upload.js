// Choosing files by dialog, drag and drop or paste, and sending them with progress. Used by several pages.

/** Let files be dropped on `zone`, whose file input then holds them as if they had been chosen. */
export function makeDropZone(zone) {
  const input = leaveToUs(zone.querySelector('input[type="file"]'));
  let inside = 0;
  const highlight = (change) => {
    inside = change === 0 ? 0 : inside + change;
    zone.classList.toggle("ck-over", inside > 0);
  };
  zone.addEventListener("dragenter", () => highlight(1));
  zone.addEventListener("dragleave", () => highlight(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    highlight(0);
    give(input, event.dataTransfer.files);
  });
  return input;
}

/** Unfold's own script shows a chosen file's name beside its own kind of file input, and fails on any other. */
export function leaveToUs(input) {
  input.hasChangeListener = true;
  return input;
}

/** Take pictures from the clipboard, wherever on the page they are pasted. */
export function takePasted(input) {
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (files.length > 0) {
      event.preventDefault();
      const transfer = new DataTransfer();
      files.forEach((file) => transfer.items.add(file));
      give(input, transfer.files);
    }
  });
}

function give(input, files) {
  if (files.length === 0) return;
  if (!input.multiple && files.length > 1) {
    const transfer = new DataTransfer();
    transfer.items.add(files[0]);
    files = transfer.files;
  }
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

/**
 * POST a form's data in the background.
 * @returns {Promise<{body: object, problem: string}>} `problem` says to a person what went wrong, and is empty
 *   when nothing did.
 */
export function send(url, data, onProgress = () => {}) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", document.querySelector("[name=csrfmiddlewaretoken]").value);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const body = parse(request.responseText);
      resolve({ body, problem: body && request.status < 300 ? "" : describe(request.status, body) });
    });
    request.addEventListener("error", () =>
      resolve({ body: null, problem: "The server cannot be reached. Is the network up?" }),
    );
    request.send(data);
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a page for people: the log-in, or an error of a proxy
  }
}

function describe(status, body) {
  if (body && body.detail) return body.detail;
  if (status === 200 || status === 403) return "You have been logged out. Load the page again.";
  if (status === 413) return "The file is larger than the server takes.";
  return `The server answered ${status}. Try again; if it stays so, tell your operator.`;
}
