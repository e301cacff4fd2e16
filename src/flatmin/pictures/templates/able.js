// What the style sheet has to know before anything is drawn: whether scripts run, and
// whether the browser draws surfaces. Without either, pictures stand in for figures.
const able = document.documentElement.classList;
const surfaces = ['webgl2', 'webgl'].some(
  name => document.createElement('canvas').getContext(name));
able.add('scripts');
if (surfaces) able.add('surfaces');
