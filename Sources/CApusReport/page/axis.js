// Places of values along an axis, and its ticks.

// Round numbers from low to high, about `count` of them.
function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + step * 1e-9; i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

// Powers of ten; with fewer than three of them also 2 and 5 between, with less than one round numbers.
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  if (decades < 1) return linearTicks(low, high, count);
  const parts = decades < 2.2 ? [1, 2, 5] : [1];
  const skip = Math.max(1, Math.ceil(decades / Math.max(count, 1)));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    if (parts.length === 1 && power % skip !== 0) continue;
    for (const part of parts) {
      const tick = Number((part * 10 ** power).toPrecision(3));
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

// An axis over [low, high] drawn from pixel `from` to pixel `to`.
class Axis {
  constructor(low, high, from, to, isLog) {
    this.isLog = isLog;
    this.low = low;
    this.high = high;
    this.from = from;
    this.to = to;
  }

  place(value) {
    const [a, b, v] = this.isLog
      ? [Math.log(this.low), Math.log(this.high), Math.log(value)]
      : [this.low, this.high, value];
    return this.from + ((v - a) / (b - a)) * (this.to - this.from);
  }

  value(place) {
    const part = (place - this.from) / (this.to - this.from);
    return this.low + part * (this.high - this.low);
  }

  // About `count` ticks, round in multiples of `unit`.
  ticks(count, unit = 1) {
    const round = this.isLog ? logTicks : linearTicks;
    return round(this.low / unit, this.high / unit, count).map((tick) => tick * unit);
  }

  // The range of a value axis: what is shown, with some air; from zero when zero is near.
  static fit(values, isLog, fixedLow) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value === null || (isLog && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low > high) return isLog ? [0.1, 1] : [0, 1];
    if (isLog) {
      const air = Math.max((high / low) ** 0.05, 1.02);
      return [low / air, high * air];
    }
    if (fixedLow !== undefined) low = Math.min(fixedLow, low);
    else if (low > 0 && low < 0.35 * high) low = 0;
    if (high === low) return [low === 0 ? 0 : low - Math.abs(low) * 0.1, low === 0 ? 1 : high + Math.abs(high) * 0.1];
    const air = 0.05 * (high - low);
    return [low === 0 || low === fixedLow ? low : low - air, high + air];
  }
}
