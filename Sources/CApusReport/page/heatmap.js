// Each layer's expert load over time: a column for each step or bucket of steps, a row for each expert.

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const digitValues = new Map([...digits].map((digit, value) => [digit, value]));

// Shares from their text: two digits each hold the square root of a share in 4095ths; what is no digit is missing.
function decodedShares(text) {
  const shares = new Float32Array(text.length / 2);
  for (let i = 0; i < shares.length; i += 1) {
    const high = digitValues.get(text[2 * i]);
    const low = digitValues.get(text[2 * i + 1]);
    shares[i] = high === undefined || low === undefined ? NaN : ((64 * high + low) / 4095) ** 2;
  }
  return shares;
}

// Colours for a load of `ratio` times the even one, `reach` octaves to either end.
class LoadColors {
  constructor(reach) {
    this.reach = reach;
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--heat-${name}`).trim().split(/\s+/).map(Number);
    [this.low, this.even, this.high, this.dead] = ['low', 'even', 'high', 'dead'].map(color);
  }

  of(ratio) {
    if (Number.isNaN(ratio)) return [128, 128, 128, 0];
    if (ratio === 0) return [...this.dead, 255];
    const place = Math.max(-1, Math.min(1, Math.log2(ratio) / this.reach));
    const end = place < 0 ? this.low : this.high;
    return [...this.even.map((even, i) => Math.round(even + Math.abs(place) * (end[i] - even))), 255];
  }

  // The octaves that hold nearly all loads: a half, one, two or three.
  static reach(layers) {
    const sizes = [];
    for (const { shares, experts } of layers) {
      const skip = Math.max(1, Math.floor(shares.length / 4000));
      for (let i = 0; i < shares.length; i += skip) {
        if (shares[i] > 0) sizes.push(Math.abs(Math.log2(shares[i] * experts)));
      }
    }
    sizes.sort((a, b) => a - b);
    const most = sizes[Math.floor(0.98 * (sizes.length - 1))] ?? 1;
    return [0.5, 1, 2].find((reach) => most <= reach) ?? 3;
  }
}

class HeatMap {
  constructor(layer, columns) {
    this.layer = layer;
    this.columns = columns;
    this.canvas = element('canvas', { 'aria-hidden': 'true' });
    this.canvas.width = columns.length;
    this.canvas.height = layer.experts;
    this.rowHeight = Math.max(2, Math.min(16, Math.floor(260 / layer.experts)));
    this.canvas.style.height = `${this.rowHeight * layer.experts}px`;
    this.frame = element('div', { class: 'frame', hidden: '' });
    this.plot = element(
      'div', { class: 'plot', role: 'img', tabindex: '0', 'aria-label': this.description() }, this.canvas, this.frame);
    this.says = element('p', { class: 'says', 'aria-live': 'polite' });
    this.node = element(
      'article', { class: 'card' }, element('div', { class: 'head' }, element('h3', {}, `Layer ${layer.layer}`)),
      element('p', { class: 'about' }, `${layer.experts} experts, a row each, over steps`), this.plot, this.says);
    this.addTicks();
    this.saySummary();
    this.plot.addEventListener('pointermove', (event) => this.pointAt(event));
    this.plot.addEventListener('pointerleave', () => this.leave());
    this.plot.addEventListener('blur', () => this.leave());
    this.plot.addEventListener('keydown', (event) => this.move(event));
  }

  share(column, expert) { return this.layer.shares[column * this.layer.experts + expert]; }

  column(index) {
    return Array.from({ length: this.layer.experts }, (_, expert) => this.share(index, expert));
  }

  summary(index) {
    const shares = this.column(index);
    const most = shares.indexOf(Math.max(...shares));
    const least = shares.indexOf(Math.min(...shares));
    const dead = shares.filter((share) => share === 0).length;
    return `most: expert ${most} with ${percent(shares[most])}; least: expert ${least} with ${percent(shares[least])}; `
      + `even: ${percent(1 / shares.length)}; without tokens: ${dead}`;
  }

  description() {
    return `Heat map of the load of ${this.layer.experts} experts of layer ${this.layer.layer}. `
      + `At the end ${this.summary(this.columns.length - 1)}.`;
  }

  steps(column) {
    const [first, last] = this.columns[column];
    return first === last ? `Step ${whole(first)}` : `Steps ${whole(first)} to ${whole(last)}`;
  }

  saySummary() {
    const last = this.columns.length - 1;
    this.says.textContent = `${this.steps(last)}: ${this.summary(last)}`;
  }

  addTicks() {
    const { experts } = this.layer;
    const height = this.rowHeight * experts;
    const every = [1, 2, 4, 8, 16, 32, 64].find((step) => step * this.rowHeight >= 14) ?? 128;
    for (let expert = 0; expert < experts; expert += every) {
      const tick = element('span', { class: 'tick' }, String(expert));
      tick.style.cssText = `right: calc(100% - 29px); top: ${(expert + 0.5) * this.rowHeight - 4.5}px`;
      this.plot.append(tick);
    }
    const last = this.columns.length - 1;
    for (const [column, style] of [[0, 'left: 34px'], [last, 'right: 0']]) {
      if (column === 0 && last === 0) continue;
      const tick = element('span', { class: 'tick' }, shortStep(this.columns[column][column === 0 ? 0 : 1]));
      tick.style.cssText = `${style}; top: ${height + 6}px`;
      this.plot.append(tick);
    }
  }

  draw(colors) {
    const image = new ImageData(this.columns.length, this.layer.experts);
    for (let column = 0; column < this.columns.length; column += 1) {
      for (let expert = 0; expert < this.layer.experts; expert += 1) {
        const color = colors.of(this.share(column, expert) * this.layer.experts);
        image.data.set(color, 4 * (expert * this.columns.length + column));
      }
    }
    this.canvas.getContext('2d').putImageData(image, 0, 0);
  }

  pointAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (part, count) => Math.max(0, Math.min(count - 1, Math.floor(part * count)));
    this.point(
      inside((event.clientX - box.left) / box.width, this.columns.length),
      inside((event.clientY - box.top) / box.height, this.layer.experts));
  }

  move(event) {
    const [across, down] = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    const [column, expert] = this.cell ?? [this.columns.length - 1 - across, -down];
    this.point(
      Math.max(0, Math.min(this.columns.length - 1, column + across)),
      Math.max(0, Math.min(this.layer.experts - 1, expert + down)));
  }

  point(column, expert) {
    this.cell = [column, expert];
    const width = this.canvas.clientWidth / this.columns.length;
    const left = this.canvas.offsetLeft + 1;
    this.frame.hidden = false;
    this.frame.style.cssText = `left: ${left + column * width - 2}px; width: ${Math.max(width, 2) + 4}px; `
      + `top: ${expert * this.rowHeight - 1}px; height: ${this.rowHeight + 4}px`;
    const share = this.share(column, expert);
    this.says.textContent = Number.isNaN(share)
      ? `${this.steps(column)}: not recorded`
      : `${this.steps(column)}, expert ${expert}: ${percent(share)} of the tokens, `
        + `${number(share * this.layer.experts)} × an even load`;
  }

  leave() {
    this.cell = null;
    this.frame.hidden = true;
    this.saySummary();
  }
}
