import { hostConformance } from '../support/host-conformance.ts';
import { openMemoryHost, withMemoryFixture } from './memory-fixture.ts';

hostConformance('the in-memory host', await openMemoryHost().capabilities(), withMemoryFixture);
