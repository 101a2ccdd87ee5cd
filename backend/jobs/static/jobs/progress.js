// Progress of jobs that go on, asked for each second; on a job's own page a new state brings its new buttons.

const EVERY_MS = 1000;

for (const shown of document.querySelectorAll("[data-job]")) follow(shown);

async function follow(shown) {
  const bar = shown.querySelector("progress");
  const count = shown.querySelector("[data-count]");
  const page = document.querySelector("[data-job-page]");
  for (let state = shown.dataset.state; state === "queued" || state === "running"; ) {
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    if (document.hidden) continue;
    const response = await fetch(shown.dataset.job).catch(() => null);
    if (!response || !response.ok || response.redirected) continue;
    const job = await response.json();
    if (page && job.state !== state) {
      window.location.reload();
      return;
    }
    state = job.state;
    if (job.total !== null) {
      bar.max = job.total || 1;
      bar.value = job.cursor;
    }
    count.textContent = job.count;
    tell(page, "[data-failed]", `${job.failed}`);
    tell(page, "[data-pace]", job.pace);
    tell(page, "[data-stage]", job.stage.charAt(0).toUpperCase() + job.stage.slice(1));
    const word = shown.closest("tr")?.querySelector("[data-job-state] > .ck-label");
    if (word && word.textContent !== state) {
      word.textContent = state;
      word.className = "ck-label";
    }
  }
}

function tell(page, selector, text) {
  const there = page?.querySelector(selector);
  if (!there) return;
  there.textContent = text;
  there.hidden = !text;
}
