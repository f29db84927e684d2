import { mount } from 'svelte';
import './styles/tokens.css';
import './styles/base.css';
import App from './App.svelte';
import { clock } from './lib/clock.svelte';
import { farm } from './lib/farm.svelte';
import * as keys from './lib/keys';
import { live } from './lib/live.svelte';
import { router } from './lib/router.svelte';
import { theme } from './lib/theme.svelte';

theme.start();
router.start();
keys.start();
clock.start();
live.start();
farm.start();
mount(App, { target: document.getElementById('app')! });
