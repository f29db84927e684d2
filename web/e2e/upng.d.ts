declare module 'upng-js';
