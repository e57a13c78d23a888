// The page's own script: it draws the charts, and sorts and filters the table. All that comes from runs is set as text.
(() => {
  "use strict";
  const found = JSON.parse(document.getElementById("data").textContent);

  // Without eval, so that the page's policy may forbid it; without a menu, which would link to an editor on the web.
  const options = { actions: false, ast: true, renderer: "svg", mode: "vega-lite" };
  for (const [id, spec] of Object.entries(found.charts)) vegaEmbed(document.getElementById(id), spec, options);

  const table = document.getElementById("runs");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const [words, job, outcome] = ["words", "job", "outcome"].map((id) => document.getElementById(id));
  const more = document.getElementById("more");
  const counted = document.getElementById("counted");
  const page = 20;
  const FIELDS = ["when", "job", "outcome", "budget", "consumed", "after", "seconds", "id"];
  const runs = found.runs.map((row) => {
    const run = Object.fromEntries(found.fields.map((name, at) => [name, row[at]]));
    run.search = [run.job, run.outcome, run.labels, run.id, run.account, run.when].join("\n").toLowerCase();
    return run;
  });
  const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
  let sorted = { by: "when", up: false };
  let shown = page;

  const compare = (a, b) => {
    const [x, y] = [a[sorted.by], b[sorted.by]];
    if (x === y) return 0;
    if (x === null) return 1; // what is not known comes last, either way
    if (y === null) return -1;
    return (x < y ? -1 : 1) * (sorted.up ? 1 : -1);
  };

  const number = (value) => (value === null ? "" : numbers.format(value));
  const duration = (seconds) => {
    if (seconds === null) return "";
    if (seconds < 99.5) return `${seconds < 9.95 ? seconds.toFixed(1) : seconds.toFixed(0)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const consumed = (run) => {
    if (run.sure === "refused") return ["", ""];
    if (run.sure === "unknown" || run.consumed === null) return ["not known", "unknown"];
    const sign = { "at most": "≤ ", "at least": "≥ " }[run.sure];
    return [`${sign ?? ""}${number(run.consumed)}`, `${sign ? "bound" : ""}${run.over ? " over" : ""}`];
  };

  const add = (row, text, classes, small) => {
    const cell = row.insertCell();
    cell.className = classes;
    cell.textContent = text;
    if (small) {
      const element = document.createElement("small");
      element.textContent = small;
      cell.append(element);
    }
    return cell;
  };

  const draw = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = runs.filter(
      (run) =>
        (!job.value || run.job === found.jobs[job.value]) &&
        (!outcome.value || (outcome.value === "over" ? run.over : run.outcome === outcome.value)) &&
        wanted.every((word) => run.search.includes(word)),
    );
    rows.sort(compare);
    body.replaceChildren();
    for (const run of rows.slice(0, shown)) {
      const row = body.insertRow();
      const [text, kind] = consumed(run);
      add(row, run.when.replace("T", " "), "when");
      add(row, run.job, "job", [found.several ? run.account : "", run.labels].filter(Boolean).join(" · "));
      add(row, run.outcome, `outcome tertiary ${run.outcome}`);
      add(row, number(run.budget), "number tertiary");
      const cell = add(row, "", "number");
      const mark = document.createElement("span");
      mark.className = kind;
      mark.textContent = text;
      if (kind.startsWith("bound")) mark.title = found.why[run.sure];
      if (run.sure === "refused") [mark.textContent, mark.className] = ["refused", "refused narrow"];
      cell.append(mark);
      add(row, number(run.after), "number secondary");
      add(row, duration(run.seconds), "number secondary");
      add(row, run.id, "run secondary");
    }
    more.hidden = rows.length <= shown;
    more.textContent = `Show ${Math.min(rows.length - shown, 10 * page)} more`;
    const few = rows.length > shown ? `${numbers.format(shown)} are shown. ` : "";
    counted.textContent = few + (
      rows.length === runs.length ? found.counted : `${numbers.format(rows.length)} of ${numbers.format(runs.length)} runs`
    );
    heads.forEach((head, at) => {
      if (FIELDS[at] === sorted.by) head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };

  heads.forEach((head, at) =>
    head.querySelector("button").addEventListener("click", () => {
      const by = FIELDS[at];
      const text = ["job", "outcome", "id"].includes(by);
      sorted = { by, up: sorted.by === by ? !sorted.up : text };
      draw();
    }),
  );
  for (const input of [words, job, outcome])
    input.addEventListener("input", () => {
      shown = page;
      draw();
    });
  more.addEventListener("click", () => {
    shown += 10 * page;
    draw();
  });
  draw();
})();
