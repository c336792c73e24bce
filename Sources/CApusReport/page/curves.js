// What is done to curves before they are drawn. A missing value is null.

// A running mean that forgets with `weight`, free of the bias of its beginning. A weight of 0 changes nothing.
function smoothed(values, weight) {
  if (weight <= 0) return values;
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

// The index of the step nearest to `step` in an ascending list.
function nearest(steps, step) {
  let low = 0;
  let high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
}

// An SVG path through the points that are there.
function path(steps, values, x, y) {
  let text = '';
  let isDown = false;
  for (let i = 0; i < steps.length; i += 1) {
    const value = values[i];
    if (value === null || (y.isLog && value <= 0)) {
      isDown = false;
      continue;
    }
    text += `${isDown ? 'L' : 'M'}${x.place(steps[i]).toFixed(1)} ${y.place(value).toFixed(1)}`;
    isDown = true;
  }
  return text;
}

// An SVG path around all that lies between two curves.
function band(steps, low, high, x, y) {
  const there = steps.map((_, i) => i).filter((i) => low[i] !== null && (!y.isLog || low[i] > 0));
  if (there.length < 2) return '';
  const point = (i, value) => `${x.place(steps[i]).toFixed(1)} ${y.place(value).toFixed(1)}`;
  const outline = there.map((i) => point(i, high[i])).concat(there.reverse().map((i) => point(i, low[i])));
  return `M${outline.join('L')}Z`;
}

// The values between which nearly all of a band lies.
function quantiles(low, high) {
  const sort = (values) => values.filter((value) => value !== null).sort((a, b) => a - b);
  const [lows, highs] = [sort(low), sort(high)];
  if (!lows.length) return [];
  return [lows[Math.floor(0.01 * (lows.length - 1))], highs[Math.ceil(0.99 * (highs.length - 1))]];
}
