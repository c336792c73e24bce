// A line chart of one quantity, all runs over each other, with the values under the cursor below it.

const dashes = ['', '7 3', '2 3', '9 3 2 3', '4 2', '1.5 2'];

function runColor(index) { return `var(--run-${index % 6})`; }

// The sample of a run's line in a legend: its colour and its dashes, so that neither has to be told alone.
function lineKey(index) {
  const key = shape('svg', { class: 'key', viewBox: '0 0 26 10', 'aria-hidden': 'true' });
  key.append(shape('path', {
    d: 'M0 5H26', class: 'curve', stroke: runColor(index), 'stroke-dasharray': dashes[index % 6],
  }));
  return key;
}

class Chart {
  // `spec`: title, about, key, format, and optionally log (starts logarithmic), low (the axis begins there), exact
  // (never smoothed), whole (ticks are whole numbers), held (held-out points too).
  // `view` is shared: smoothing weight, cursor's step, hidden runs.
  constructor(spec, runs, view, onCursor) {
    this.spec = spec;
    this.runs = runs.map((run, index) => ({ ...run, index })).filter((run) => run.curves[spec.key]);
    this.view = view;
    this.isLog = Boolean(spec.log);
    this.height = 210;
    this.build(onCursor);
  }

  build(onCursor) {
    const { spec } = this;
    const log = element('input', { type: 'checkbox' });
    log.checked = this.isLog;
    log.addEventListener('change', () => {
      this.isLog = log.checked;
      this.draw();
    });
    const head = element('div', { class: 'head' }, element('h3', {}, spec.title), element('label', {}, log, 'log'));
    this.svg = shape('svg', { height: this.height, 'aria-hidden': 'true' });
    const label = { role: 'img', tabindex: '0', 'aria-label': this.description() };
    this.plot = element('div', { class: 'plot', ...label }, this.svg);
    this.readout = element('table', { class: 'readout' });
    this.status = element('div', { class: 'hidden-text', 'aria-live': 'polite' });
    this.node = element(
      'article', { class: 'card' }, head, element('p', { class: 'about' }, spec.about), this.plot, this.readout,
      this.status);
    this.plot.addEventListener('pointermove', (event) => {
      const left = this.svg.getBoundingClientRect().left;
      onCursor(this.stepAt(event.clientX - left));
    });
    this.plot.addEventListener('pointerleave', () => onCursor(null));
    this.plot.addEventListener('blur', () => onCursor(null));
    this.plot.addEventListener('keydown', (event) => this.move(event, onCursor));
  }

  get shown() { return this.runs.filter((run) => !this.view.hidden.has(run.index)); }

  // The steps that any shown run has a point at.
  stepAt(place) {
    const wanted = this.x ? this.x.value(place) : 0;
    const candidates = this.shown.map((run) => run.steps[nearest(run.steps, wanted)]);
    return candidates.sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted))[0] ?? null;
  }

  move(event, onCursor) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const run = this.shown[0];
    if (!way || !run) return;
    event.preventDefault();
    const jump = (event.shiftKey ? 10 : 1) * way;
    const at = this.view.cursor === null ? run.steps.length - 1 : nearest(run.steps, this.view.cursor);
    onCursor(run.steps[Math.min(run.steps.length - 1, Math.max(0, at + jump))]);
    this.status.textContent = `Step ${this.view.cursor}: `
      + this.shown.map((r) => `${r.name} ${this.spec.format(this.at(r, this.view.cursor))}`).join(', ');
  }

  at(run, step) { return run.curves[this.spec.key].mean[nearest(run.steps, step)]; }

  description() {
    const parts = this.runs.map((run) => {
      const { mean } = run.curves[this.spec.key];
      const last = run.steps.length - 1;
      return `${run.name}: ${this.spec.format(mean[0])} at step ${run.steps[0]}, `
        + `${this.spec.format(mean[last])} at step ${run.steps[last]}`;
    });
    return `Line chart of ${this.spec.title.toLowerCase()} over steps. ${parts.join('. ')}.`;
  }

  draw() {
    const width = Math.max(this.plot.clientWidth, 120);
    const shown = this.shown.map((run) => ({ ...run, line: smoothed(run.curves[this.spec.key].mean, this.weight) }));
    this.svg.setAttribute('viewBox', `0 0 ${width} ${this.height}`);
    this.svg.replaceChildren();
    const values = shown.flatMap((run) => this.valuesInSight(run));
    const [low, high] = Axis.fit(values, this.isLog, this.spec.low);
    this.y = new Axis(low, high, this.height - 20, 6, this.isLog);
    const steps = shown.flatMap((run) => [run.steps[0], run.steps[run.steps.length - 1]]);
    const first = Math.min(...steps);
    const last = Math.max(...steps);
    const unit = this.spec.format === bytes ? byteUnit(high) : 1;
    const labels = this.y.ticks(5, unit).filter((tick) => tick >= low && tick <= high)
      .filter((tick) => !this.spec.whole || Number.isInteger(tick));
    const texts = labels.map((tick) => this.spec.tick ? this.spec.tick(tick) : this.spec.format(tick));
    const margin = 12 + 6.5 * Math.max(2, ...texts.map((text) => text.length));
    this.x = steps.length
      ? new Axis(first, last > first ? last : first + 1, margin, width - 10, false)
      : new Axis(0, 1, margin, width - 10, false);
    this.drawAxes(labels, texts, width);
    for (const run of shown) this.drawRun(run);
    this.marks = this.svg.appendChild(shape('g'));
    this.drawCursor();
  }

  get weight() { return this.spec.exact ? 0 : this.view.weight; }

  // What decides the axis: the curves and their bands, less the rare far outlier of a band.
  valuesInSight(run) {
    const curve = run.curves[this.spec.key];
    const held = this.spec.held ? run.held.values : [];
    return [...curve.mean, ...held, ...(curve.min ? quantiles(curve.min, curve.max) : [])];
  }

  drawAxes(labels, texts, width) {
    labels.forEach((tick, i) => {
      const place = Math.round(this.y.place(tick));
      this.svg.append(shape('path', { class: 'rule', d: `M${this.x.from} ${place}H${width - 10}` }));
      const text = shape('text', { x: this.x.from - 6, y: place + 4, 'text-anchor': 'end' });
      text.textContent = texts[i];
      this.svg.append(text);
    });
    const bottom = this.height - 20;
    this.svg.append(shape('path', { class: 'base', d: `M${this.x.from} ${bottom}H${width - 10}` }));
    const room = Math.max(2, Math.floor((width - this.x.from) / 70));
    for (const tick of this.x.ticks(room).filter(Number.isInteger)) {
      const place = this.x.place(tick);
      this.svg.append(shape('path', { class: 'base', d: `M${place.toFixed(1)} ${bottom}v4` }));
      const isEnd = place > width - 24;
      const text = shape('text', {
        x: isEnd ? width - 2 : place.toFixed(1), y: bottom + 16, 'text-anchor': isEnd ? 'end' : 'middle',
      });
      text.textContent = shortStep(tick);
      this.svg.append(text);
    }
  }

  drawRun(run) {
    const curve = run.curves[this.spec.key];
    const stroke = runColor(run.index);
    if (curve.min && this.weight === 0) {
      const d = band(run.steps, curve.min, curve.max, this.x, this.y);
      this.svg.append(shape('path', { class: 'band', d, fill: stroke }));
    }
    if (this.weight > 0) {
      this.svg.append(shape('path', { class: 'raw', d: path(run.steps, curve.mean, this.x, this.y), stroke }));
    }
    this.svg.append(shape('path', {
      class: 'curve', d: path(run.steps, run.line, this.x, this.y), stroke, 'stroke-dasharray': dashes[run.index % 6],
    }));
    if (run.steps.length === 1) this.dot(this.svg, run.steps[0], run.line[0], stroke);
    if (!this.spec.held) return;
    run.held.steps.forEach((step, i) => {
      const value = run.held.values[i];
      if (value === null || (this.isLog && value <= 0)) return;
      this.svg.append(shape('circle', {
        class: 'held', cx: this.x.place(step).toFixed(1), cy: this.y.place(value).toFixed(1), r: 3.6, stroke,
      }));
    });
  }

  dot(parent, step, value, fill) {
    if (value === null || (this.isLog && value <= 0)) return;
    parent.append(shape('circle', {
      class: 'dot', cx: this.x.place(step).toFixed(1), cy: this.y.place(value).toFixed(1), r: 4, fill,
    }));
  }

  drawCursor() {
    const { cursor } = this.view;
    this.marks.replaceChildren();
    const rows = this.shown.map((run) => this.row(run, cursor));
    if (cursor !== null && this.shown.length) {
      const place = this.x.place(cursor).toFixed(1);
      this.marks.append(shape('path', { class: 'cursor', d: `M${place} 6V${this.height - 20}` }));
      for (const { run, index, value } of rows) this.dot(this.marks, run.steps[index], value, runColor(run.index));
    }
    this.fillReadout(rows, cursor);
  }

  // What the table says of a run at a step, the last one without a cursor.
  row(run, cursor) {
    const curve = run.curves[this.spec.key];
    const index = cursor === null ? run.steps.length - 1 : nearest(run.steps, cursor);
    const held = run.held.steps.filter((step) => step <= run.steps[index]).length - 1;
    return {
      run, index, value: curve.mean[index], smooth: smoothed(curve.mean, this.weight)[index],
      range: curve.min ? [curve.min[index], curve.max[index]] : null,
      held: this.spec.held && held >= 0 ? [run.held.values[held], run.held.steps[held]] : null,
    };
  }

  fillReadout(rows, cursor) {
    const { format } = this.spec;
    const has = (name) => rows.some((row) => row[name] !== null);
    const columns = [['value', (row) => format(row.value)]];
    if (has('range')) columns.push(['least – most', (row) => row.range ? row.range.map(format).join(' – ') : '']);
    if (this.weight > 0) columns.push(['smooth', (row) => format(row.smooth)]);
    if (has('held')) columns.push(['○ held out', (row) => row.held ? format(row.held[0]) : '–']);
    const steps = new Set(rows.map((row) => row.run.steps[row.index]));
    const at = steps.size === 1 ? `step ${whole([...steps][0])}` : cursor === null ? 'last step' : 'nearest step';
    const header = element('tr', {}, element('th', { scope: 'col' }, at));
    for (const [name] of columns) header.append(element('th', { scope: 'col' }, name));
    const body = element('tbody');
    for (const row of rows) {
      const line = element('tr', {}, element('th', { scope: 'row' }, lineKey(row.run.index), row.run.name));
      for (const [, text] of columns) line.append(element('td', {}, text(row)));
      body.append(line);
    }
    this.readout.replaceChildren(element('thead', {}, header), body);
  }
}
