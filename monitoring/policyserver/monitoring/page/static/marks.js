// The marks of a time axis: a dashed line where a serving process began anew, a tick at the bottom where a checkpoint was written.

const TICK = 7;

export function drawMarks(plot, { restarts, checkpoints }, color) {
  if (!restarts.length && !checkpoints.length) return;
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const line = (time, from) => {
    const x = Math.round(plot.valToPos(time, "x", true)) + 0.5;
    if (x < left || x > left + width) return;
    ctx.moveTo(x, from);
    ctx.lineTo(x, top + height);
  };
  ctx.save();
  ctx.strokeStyle = color;
  ctx.lineWidth = uPlot.pxRatio;
  ctx.beginPath();
  checkpoints.forEach((time) => line(time, top + height - TICK * uPlot.pxRatio));
  ctx.stroke();
  ctx.setLineDash([4 * uPlot.pxRatio, 3 * uPlot.pxRatio]);
  ctx.beginPath();
  restarts.forEach((time) => line(time, top));
  ctx.stroke();
  ctx.restore();
}
