import { href, parse, type Query } from './routes_match';

export { href, job_href, task_href } from './routes_match';

class Router {
  path = $state.raw('/');
  query = $state.raw<Record<string, string>>({});

  start(): void {
    const read = () => {
      const place = parse(location.hash);
      this.path = place.path;
      this.query = place.query;
    };
    addEventListener('hashchange', read);
    read();
  }
  go(to: string, options: { replace?: boolean } = {}): void {
    const hash = to.startsWith('#') ? to : href(to);
    if (hash === location.hash) return;
    if (options.replace) {
      history.replaceState(history.state, '', hash);
      const place = parse(hash);
      this.path = place.path;
      this.query = place.query;
    } else {
      location.hash = hash;
    }
  }
  // The state of a page in its address. Replaces the entry in the history unless `push`.
  set(query: Query, options: { push?: boolean } = {}): void {
    this.go(href(this.path, { ...this.query, ...query }), { replace: !options.push });
  }
}

export const router = new Router();
