// Looks through the samples that the page holds as data. Whatever a model wrote becomes text nodes, never markup.
(() => {
  const place = document.getElementById("explorer");
  if (!place) return;
  const data = JSON.parse(place.querySelector(".data").textContent);
  const form = place.querySelector("form"), rows = place.querySelector(".rows"), more = place.querySelector("button");
  const STEP = 20, LONGEST = 250000;  // samples at a time; pairs of words that are compared
  let found = [], shown = 0;

  function make(tag, classes, ...inside) {
    const node = document.createElement(tag);
    if (classes) node.className = classes;
    node.append(...inside);
    return node;
  }

  function verbatim(...inside) {
    const node = make("pre", "", ...inside);
    node.tabIndex = 0;
    return node;
  }

  // The words of b with those that a lacks marked: a longest common subsequence between equal ends.
  function marked(a, b) {
    const split = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];
    const old = split(a), now = split(b);
    let start = 0, endA = old.length, endB = now.length;
    while (start < endA && start < endB && old[start] === now[start]) start++;
    while (endA > start && endB > start && old[endA - 1] === now[endB - 1]) { endA--; endB--; }
    const n = endA - start, m = endB - start, kept = new Set();
    if (n * m <= LONGEST) {
      const best = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
      for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
        best[i][j] = old[start + i] === now[start + j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
      for (let i = 0, j = 0; i < n && j < m;) {
        if (old[start + i] === now[start + j]) { kept.add(start + j); i++; j++; }
        else if (best[i + 1][j] >= best[i][j + 1]) i++;
        else j++;
      }
    }
    const parts = [];
    let text = "", mark = false;
    const flush = () => { if (text) parts.push(mark ? make("ins", "", text) : text); text = ""; };
    now.forEach((word, j) => {
      const other = j >= start && j < endB && !kept.has(j);
      if (other !== mark) { flush(); mark = other; }
      text += word;
    });
    flush();
    return parts;
  }

  function bars(likelihoods, gold) {
    const names = Object.keys(likelihoods), top = Math.max(...Object.values(likelihoods));
    const sum = names.reduce((total, name) => total + Math.exp(likelihoods[name] - top), 0);
    const list = make("div", "letters");
    for (const name of names) {
      const share = Math.exp(likelihoods[name] - top) / sum;
      const bar = make("i", "");
      bar.style.width = `${100 * share}%`;
      const classes = name === gold ? "gold" : "";
      list.append(make("span", classes, name), make("span", "", bar),
        make("span", classes, `${(100 * share).toFixed(1)}% (${likelihoods[name]} nats)`));
    }
    return list;
  }

  const WORDS = { 1: "right", 0: "wrong", "-1": "unreadable" };
  function sample(task, [id, prompt, gold, answers]) {
    const sides = make("div", "sides");
    answers.forEach((answer, i) => {
      if (!answer) return;
      const [text, read, verdict, reason, likelihoods] = answer, word = WORDS[verdict] || "not judged";
      const base = data.bases[i] !== i && answers[data.bases[i]];
      const head = make("p", "note", make("b", "", data.models[i]), " ");
      head.append(make("span", `tag ${verdict === 1 ? "right" : "wrong"}`, word));
      if (read !== null) head.append(` answer ${read}`);
      head.append(` (${reason})`);
      const side = make("div", "", head);
      if (text) side.append(verbatim(...(base ? marked(base[0], text) : [text])));
      if (likelihoods) side.append(bars(likelihoods, gold));
      sides.append(side);
    });
    return make("article", "sample", make("h3", "", `${task.name} ${id}`), verbatim(prompt),
      make("p", "note", "expected: ", make("b", "", gold)), sides);
  }

  function fits(row, model, verdict, words) {
    const mine = row[3][model], base = row[3][data.bases[model]];
    if (!mine) return false;
    const tests = {
      all: () => true, right: () => mine[2] === 1, wrong: () => mine[2] !== 1 && mine[2] !== null,
      unreadable: () => mine[2] === -1,
      gained: () => base && base[2] !== 1 && mine[2] === 1, lost: () => base && base[2] === 1 && mine[2] !== 1,
      other: () => base && (base[0] !== mine[0] || base[1] !== mine[1]),
    };
    if (!tests[verdict]()) return false;
    if (!words) return true;
    const texts = [row[0], row[1], row[2], ...row[3].filter(Boolean).flatMap((a) => [a[0], a[1] || ""])];
    return texts.some((text) => text.toLowerCase().includes(words));
  }

  function grow() {
    const task = data.tasks[Number(form.task.value)];
    rows.append(...found.slice(shown, shown + STEP).map((row) => sample(task, row)));
    shown = Math.min(shown + STEP, found.length);
    more.hidden = shown >= found.length;
    const left = task.of - task.rows.length;
    place.querySelector(".count").textContent = `${found.length} of ${task.of} fit, ${shown} shown` +
      (left ? `; ${left} stand in the files alone` : "");
  }

  function look() {
    const task = data.tasks[Number(form.task.value)], words = form.words.value.trim().toLowerCase();
    found = task.rows.filter((row) => fits(row, Number(form.model.value), form.verdict.value, words));
    shown = 0;
    rows.replaceChildren();
    const shared = place.querySelector(".shared");
    shared.replaceChildren();
    if (task.shared) {
      const note = make("summary", "", `Every prompt begins with the same ${task.shared.length} characters`);
      shared.append(make("details", "more", note, verbatim(task.shared)));
    }
    grow();
  }

  form.hidden = false;
  form.addEventListener("input", look);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", grow);
  look();
})();
