<#
.SYNOPSIS
  Runs cimlet against the real CimFS and HCS of this machine and prints a report: what the tests show under Wine only.

.DESCRIPTION
  Needs an elevated PowerShell on Windows Server 2022 (20348.2031 or later) or 2025, and cimlet installed
  (npm install -g cimlet). Makes -Folder, which must not exist, keeps everything in it, and removes it again unless
  something in it is still mounted. Installs the service cimlet-acceptance for a while. Touches nothing else.

  -Image is an OCI layout of a Windows image that this build of Windows can run, for example:
    skopeo copy docker://mcr.microsoft.com/windows/nanoserver:ltsc2025 oci:C:\images\nanoserver:latest

  -UtilityVM is the ID of a running Windows utility VM that was made with a GuestConnection (hcsshim's uvmboot makes
  such): the image is attached to it as well. Without it that is left out.

.EXAMPLE
  ./windows-acceptance.ps1 -Image C:\images\nanoserver
#>
param(
  [Parameter(Mandatory)] [string] $Image,
  [string] $Folder = (Join-Path $env:SystemDrive 'cimlet-acceptance'),
  [string] $Cimlet = 'cimlet',
  [string] $UtilityVM = ''
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
$results = [System.Collections.Generic.List[object]]::new()
if (Test-Path $Folder) { throw "$Folder is there already: give another -Folder, or remove it" }
$Folder = (New-Item -ItemType Directory $Folder).FullName
$root, $mounts, $manifests = 'root', 'mounts', 'manifests' | ForEach-Object { Join-Path $Folder $_ }
# npm installs a script for PowerShell too, which no other process can start.
$program = @(Get-Command $Cimlet -CommandType Application | Where-Object Extension -in '.cmd', '.exe')[0].Source

function Invoke-Cimlet {
  param([string[]] $Arguments, [int[]] $Expected = @(0))
  # Windows PowerShell takes each line of a redirected stderr for an error, and would stop at the first.
  $ErrorActionPreference = 'Continue'
  $said = Join-Path $Folder 'stderr.txt'
  $output = & $program @Arguments --root $root --host windows 2> $said | Out-String
  if ($Expected -notcontains $LASTEXITCODE) {
    throw "cimlet $($Arguments -join ' '): exit $LASTEXITCODE`n$output$(Get-Content -Raw $said)"
  }
  $output
}

function Test-Step {
  param([string] $Name, [scriptblock] $Step)
  $watch = [System.Diagnostics.Stopwatch]::StartNew()
  try {
    $note = & $Step
    $results.Add([pscustomobject]@{ Step = $Name; Result = 'ok'; Seconds = $watch.Elapsed.TotalSeconds; Note = "$note" })
  } catch {
    $results.Add([pscustomobject]@{ Step = $Name; Result = 'FAILED'; Seconds = $watch.Elapsed.TotalSeconds; Note = "$_" })
  }
}

function Assert-That {
  param([bool] $Condition, [string] $Message)
  if (-not $Condition) { throw $Message }
}

function Write-Manifest {
  param([string] $Format, [string] $Extra = '', [string] $Path = (Join-Path $mounts 'acceptance'), [string] $MountExtra = '')
  $layout = $Image -replace '\\', '/'
  $text = @"
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: acceptance}
spec: {source: {ociLayout: '$layout'}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: acceptance}
spec: {format: $Format, layers: [{image: acceptance}]$Extra}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: acceptance}
spec: {chain: acceptance, path: '$Path'$MountExtra}
"@
  [IO.File]::WriteAllText((Join-Path $manifests 'acceptance.yaml'), $text)
}

function Test-Format {
  param([string] $Format, [string] $Extra = '')
  $name = "$Format$Extra"
  $point = Join-Path $mounts 'acceptance'
  Write-Manifest $Format $Extra
  Test-Step "${name}: apply" { Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null }
  Test-Step "${name}: the plan is empty" { Invoke-Cimlet @('plan', '-f', $manifests, '--detailed-exitcode') | Out-Null }
  Test-Step "${name}: files can be read" {
    $system = Join-Path $point 'Windows\System32'
    Assert-That (Test-Path $system) "$system is not there"
    $files = @(Get-ChildItem $point -Recurse -File -Force -ErrorAction SilentlyContinue | Select-Object -First 2000)
    foreach ($file in $files | Get-Random -Count ([Math]::Min(50, $files.Count))) { Get-FileHash $file.FullName | Out-Null }
    "$($files.Count) files listed"
  }
  Test-Step "${name}: the layer document names what is there" {
    $mount = (Invoke-Cimlet @('get', 'mounts', '-o', 'json') | ConvertFrom-Json).items[0]
    $layers = @($mount.status.mounted.hcsStorage.Layers)
    Assert-That ($layers.Count -gt 0) 'it has no layers'
    foreach ($layer in $layers) { Assert-That (Test-Path -LiteralPath $layer.Path) "$($layer.Path) is not there" }
  }
  Test-Step "${name}: it is read-only" {
    try { Set-Content (Join-Path $point 'written.txt') 'x'; $isWritten = $true } catch { $isWritten = $false }
    Assert-That (-not $isWritten) 'a file could be written'
  }
  Test-Step "${name}: a second apply does nothing" {
    $output = Invoke-Cimlet @('apply', '-f', $manifests, '--yes')
    Assert-That ($output -match 'No changes') $output
  }
  Test-Step "${name}: an apply killed halfway is finished by the next" {
    Invoke-Cimlet @('delete', '-f', $manifests, '--yes') | Out-Null
    $arguments = @('apply', '-f', "`"$manifests`"", '--yes', '--root', "`"$root`"", '--host', 'windows')
    $process = Start-Process -PassThru -WindowStyle Hidden $program $arguments
    Start-Sleep -Milliseconds 1500
    if (-not $process.HasExited) { taskkill /T /F /PID $process.Id | Out-Null }
    Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null
    Invoke-Cimlet @('plan', '-f', $manifests, '--detailed-exitcode') | Out-Null
  }
  Test-Step "${name}: what is written outlives its mount, and can be exported" {
    Write-Manifest $Format $Extra $point ', access: ReadWrite'
    Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null
    Set-Content (Join-Path $point 'written.txt') 'x'
    Write-Manifest $Format $Extra
    Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null
    Assert-That (-not (Test-Path (Join-Path $point 'written.txt'))) 'the layers themselves were written to'
    $tar = Join-Path $manifests '..\written.tar'
    Invoke-Cimlet @('layer', 'diff', 'mount/acceptance', '-o', $tar) | Out-Null
    $entries = @(tar -tf $tar)
    Remove-Item $tar
    Assert-That ($entries -contains 'Files/written.txt') "the tar has $($entries.Count) entries, and not what was written"
    "$($entries.Count) entries"
  }
  Test-Step "${name}: an apply killed at a writable mount is finished by the next, and what is written outlives a killed agent" {
    Write-Manifest $Format $Extra $point ', access: ReadWrite'
    # Its layers are there: what is killed is at work on the scratch, or has just shown it.
    $arguments = @('apply', '-f', "`"$manifests`"", '--yes', '--root', "`"$root`"", '--host', 'windows')
    $process = Start-Process -PassThru -WindowStyle Hidden $program $arguments
    $deadline = (Get-Date).AddSeconds(60)
    while (-not $process.HasExited -and -not (Test-Path (Join-Path $point 'Windows')) -and (Get-Date) -lt $deadline) {
      Start-Sleep -Milliseconds 20
    }
    if (-not $process.HasExited) { taskkill /T /F /PID $process.Id | Out-Null }
    Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null
    Invoke-Cimlet @('plan', '-f', $manifests, '--detailed-exitcode') | Out-Null
    Set-Content (Join-Path $point 'after-kill.txt') 'x'
    # An agent that is killed leaves what it mounted.
    $agent = Start-Process -PassThru -WindowStyle Hidden $program @('agent', '-f', "`"$manifests`"", '--root', "`"$root`"", '--host', 'windows')
    Start-Sleep -Seconds 5
    if (-not $agent.HasExited) { taskkill /T /F /PID $agent.Id | Out-Null }
    Assert-That (Test-Path (Join-Path $point 'after-kill.txt')) 'what was written is gone'
    Write-Manifest $Format $Extra
    Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null
  }
  Test-Step "${name}: delete leaves nothing" {
    Invoke-Cimlet @('delete', '-f', $manifests, '--yes') | Out-Null
    Assert-That (-not (Test-Path (Join-Path $point 'Windows'))) "$point still shows the image"
    $state = Invoke-Cimlet @('observe', '-o', 'json') | ConvertFrom-Json
    Assert-That ($state.layers.Count -eq 0) "$($state.layers.Count) layers are left"
    Assert-That ($state.mounts.Count -eq 0) "$($state.mounts.Count) mounts are left"
    Assert-That ($state.leftovers.Count -eq 0) ($state.leftovers | ConvertTo-Json)
  }
}

function Test-Service {
  param([string] $Format)
  $service = 'cimlet-acceptance'
  Write-Manifest $Format
  try {
    Test-Step 'service: install' { Invoke-Cimlet @('service', 'install', '-f', $manifests, '--name', $service) | Out-Null }
    Test-Step 'service: it runs' {
      Invoke-Cimlet @('service', 'status', '--name', $service) | Out-Null
      $state = (Get-Service $service).Status
      Assert-That ($state -eq 'Running') "the service manager says $state"
    }
    Test-Step 'service: its agent mounts, and answers' {
      Invoke-Cimlet @('wait', 'mount/acceptance') | Out-Null
      $mount = (Invoke-Cimlet @('get', 'mounts', '-o', 'json') | ConvertFrom-Json).items[0]
      $ready = @($mount.status.conditions).Where({ $_.type -eq 'Ready' })[0]
      Assert-That ($ready.status -eq 'True') $ready.message
    }
  } finally {
    Test-Step 'service: uninstall stops it, and what it mounted stays' {
      Invoke-Cimlet @('service', 'uninstall', '--name', $service) | Out-Null
      Assert-That ($null -eq (Get-Service $service -ErrorAction SilentlyContinue)) 'it is still there'
      Invoke-Cimlet @('plan', '-f', $manifests, '--detailed-exitcode') | Out-Null
    }
  }
  Test-Step 'service: delete' { Invoke-Cimlet @('delete', '-f', $manifests, '--yes') | Out-Null }
}

function Test-UtilityVM {
  Write-Manifest 'BlockCIM' ', vhdFooter: true' 'C:\cimlet-acceptance' ", access: ReadWrite, isolation: {utilityVM: {id: '$UtilityVM'}}"
  Test-Step 'utility VM: apply' { Invoke-Cimlet @('apply', '-f', $manifests, '--yes') | Out-Null }
  Test-Step 'utility VM: the plan is empty' { Invoke-Cimlet @('plan', '-f', $manifests, '--detailed-exitcode') | Out-Null }
  Test-Step 'utility VM: delete' { Invoke-Cimlet @('delete', '-f', $manifests, '--yes') | Out-Null }
}

New-Item -ItemType Directory $manifests, $mounts | Out-Null
try {
  $version = Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
  Test-Step 'this machine' { "$($version.ProductName) $($version.CurrentBuild).$($version.UBR), cimlet $(& $program version)" }
  Test-Step 'doctor' { Invoke-Cimlet @('doctor') @(0, 1) }
  $state = Invoke-Cimlet @('observe', '-o', 'json') | ConvertFrom-Json
  Test-Step 'compute systems are seen' {
    $unknown = $state.computeSystems.PSObject.Properties['unknown']
    Assert-That ($null -eq $unknown) "$($unknown.Value)"
    "$(@($state.computeSystems.running).Count) running, $(@($state.cimVolumes).Count) CIMs mounted"
  }
  $usable = ''
  foreach ($format in 'ForkedCIM', 'BlockCIM', 'WCIFS') {
    $write = $state.capabilities."$format.write"
    $mount = $state.capabilities."$format.mount"
    if ($write.available -and $mount.available) {
      Test-Format $format
      $usable = $format
    } else {
      $reason = @($write, $mount).Where({ -not $_.available })[0].reason
      $results.Add([pscustomobject]@{ Step = $format; Result = 'not on this build'; Seconds = 0; Note = $reason })
    }
  }
  if ($state.capabilities.seal.available -and $state.capabilities.'BlockCIM.mount'.available) {
    Test-Format 'BlockCIM' ', integrity: Verified'
  }
  if ($usable -ne '') { Test-Service $usable }
  if ($UtilityVM -ne '') { Test-UtilityVM }
} finally {
  Test-Step 'nothing stays behind' {
    if (Test-Path (Join-Path $manifests '*.yaml')) { Invoke-Cimlet @('delete', '-f', $manifests, '--yes') | Out-Null }
    $state = Invoke-Cimlet @('observe', '-o', 'json') | ConvertFrom-Json
    # A recursive delete would go on into what is mounted.
    Assert-That ($state.mounts.Count -eq 0) "$Folder stays, for something in it is still mounted"
    Remove-Item -Recurse -Force $Folder
  }
}

$results | Format-Table -AutoSize -Wrap Step, Result, @{ Label = 'Seconds'; Expression = { '{0:N1}' -f $_.Seconds } }, Note
$failed = @($results | Where-Object Result -eq 'FAILED').Count
if ($failed -gt 0) { Write-Output "$failed steps failed"; exit 1 }
Write-Output 'everything that this build of Windows can do was shown'
