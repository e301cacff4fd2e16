// Colours of the page, light or dark, for plotly.
const dark = matchMedia('(prefers-color-scheme: dark)');
const theme = () => {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(name).trim();
  const axis = {color: colour('--ink'), gridcolor: colour('--rule'),
                zerolinecolor: colour('--rule'), linecolor: colour('--edge')};
  const wall = {...axis, showbackground: false};
  const none = 'rgba(0, 0, 0, 0)';
  return {
    layout: {
      paper_bgcolor: none, plot_bgcolor: none, font: {color: colour('--ink')},
      xaxis: axis, yaxis: axis, scene: {xaxis: wall, yaxis: wall, zaxis: wall},
      modebar: {bgcolor: none, color: colour('--edge'), activecolor: colour('--ink')},
    },
    data: {scatter3d: [{marker: {color: colour('--ink')}}]},
  };
};

// Nothing that sends data anywhere.
const flat = [['toImage'], ['zoom2d', 'pan2d', 'resetScale2d']];
const solid = [['toImage'], ['zoom3d', 'pan3d', 'orbitRotation', 'resetCameraDefault3d']];
const draw = plot => {
  const {data, layout} = JSON.parse(plot.nextElementSibling.textContent);
  return Plotly.newPlot(plot, data, {...layout, template: theme()}, {
    displaylogo: false, responsive: true, modeBarButtons: layout.scene ? solid : flat,
  });
};

// Landscapes of one group are always seen from one side: when one is turned, by mouse,
// finger, button or arrow key, so are the others, also while it is being dragged.
const turnTogether = group => {
  const plots = [...group.querySelectorAll('.plot')];
  const seen = plot => JSON.stringify(plot.layout.scene.camera);
  const home = seen(plots[0]);
  const sent = new Map();
  let wanted = home;
  let leader = null;
  let busy = null;
  const send = async () => {
    let last;
    do {
      await new Promise(requestAnimationFrame);
      last = wanted;
      await Promise.all(plots.filter(plot => plot !== leader).map(plot => {
        sent.set(plot, last);
        return Plotly.relayout(plot, {'scene.camera': JSON.parse(last)});
      }));
    } while (last !== wanted);
    busy = null;
  };
  const show = (camera, from = null) => {
    wanted = camera;
    leader = from;
    busy ??= send();
  };
  for (const plot of plots) {
    plot.on('plotly_relayouting', change => {
      if (change['scene.camera']) show(JSON.stringify(change['scene.camera']), plot);
    });
    plot.on('plotly_relayout', change => {
      const turned = Object.keys(change).some(key => key.startsWith('scene.camera'));
      if (turned && seen(plot) !== sent.get(plot)) show(seen(plot), plot);
    });
  }

  // A step turns by 15 degrees; the camera stops before it looks along the vertical.
  const step = Math.PI / 12;
  const move = (around, up, closer) => {
    const camera = JSON.parse(wanted);
    const {x, y, z} = camera.eye;
    const length = Math.hypot(x, y, z);
    const azimuth = Math.atan2(y, x) + around * step;
    const height = Math.max(-1.4, Math.min(1.4, Math.asin(z / length) + up * step));
    const away = length * closer;
    camera.eye = {x: away * Math.cos(height) * Math.cos(azimuth),
                  y: away * Math.cos(height) * Math.sin(azimuth),
                  z: away * Math.sin(height)};
    show(JSON.stringify(camera));
  };
  const moves = {
    left: () => move(-1, 0, 1), right: () => move(1, 0, 1),
    up: () => move(0, 1, 1), down: () => move(0, -1, 1),
    closer: () => move(0, 0, 0.85), away: () => move(0, 0, 1 / 0.85),
    reset: () => show(home),
  };
  const keys = {ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'up',
                ArrowDown: 'down', '+': 'closer', '-': 'away', Home: 'reset'};
  for (const button of group.querySelectorAll('[data-turn]')) {
    button.addEventListener('click', () => moves[button.dataset.turn]());
  }
  for (const picture of group.querySelectorAll('[data-keys]')) {
    picture.addEventListener('keydown', event => {
      const name = keys[event.key];
      if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      moves[name]();
    });
  }
};

const flatPlots = document.querySelectorAll('.plot:not(.landscapes .plot)');
for (const plot of flatPlots) draw(plot);
if (able.contains('surfaces')) {
  for (const group of document.querySelectorAll('.landscapes')) {
    Promise.all([...group.querySelectorAll('.plot')].map(draw))
      .then(() => turnTogether(group));
  }
}
dark.addEventListener('change', () => {
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    Plotly.relayout(plot, {template: theme()});
  }
});
for (const link of document.querySelectorAll('.download')) {
  const text = document.getElementById(link.dataset.of).textContent;
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
}
